"""Secrets at rest: AES-256-GCM with a ring of keys of which the first one writes."""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from collections.abc import Mapping
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from bus.contract.errors import CredentialsUnreadable

KEY_BYTES = 32
NONCE_BYTES = 12
"""The length that NIST SP 800-38D recommends; a fresh random one for each secret."""


NOT_CONFIGURED = "no key for credentials is configured"


class Sealed(NamedTuple):
    """A secret as it is kept: which key, and what AES-GCM made of it."""

    key_id: str
    nonce: bytes
    ciphertext: bytes


class KeyRing:
    """Keys by their ids. What is wrong with them is told to whoever needs one, not before."""

    def __init__(self, keys: Mapping[str, bytes], problem: str = "") -> None:
        self._keys = dict(keys)
        self._derived: dict[tuple[str, bytes], bytes] = {}
        self.problem = problem
        """Why there are none, or not those that were meant; never a value."""

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(self._keys) or self.problem or 'empty'})"

    @classmethod
    def parse(cls, text: str) -> KeyRing:
        """Of ``id:base64`` pairs with commas or on lines of their own; ``#`` begins a comment."""
        keys: dict[str, bytes] = {}
        for number, pair in enumerate(_pairs(text), 1):
            key_id, _, encoded = pair.partition(":")
            try:
                key = base64.b64decode(encoded, validate=True)
            except (binascii.Error, ValueError):
                return cls({}, f"key {number} of the key ring is not base64")
            if not key_id or not key_id.isprintable() or len(key_id) > 100 or key_id in keys:
                return cls({}, f"key {number} of the key ring has no id of its own")
            if len(key) != KEY_BYTES:
                return cls({}, f"key {key_id} has {len(key)} bytes, not {KEY_BYTES}")
            keys[key_id] = key
        return cls(keys, "" if keys else NOT_CONFIGURED)

    @property
    def newest(self) -> str | None:
        """The id of the key that writes."""
        return next(iter(self._keys), None)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the keys that read."""
        return tuple(self._keys)

    def seal(self, plain: bytes, about: bytes) -> Sealed:
        """Encrypt with the first key; it opens only together with ``about``."""
        key_id = self.newest
        if key_id is None:
            raise CredentialsUnreadable(reason=self.problem)
        nonce = os.urandom(NONCE_BYTES)
        return Sealed(key_id, nonce, AESGCM(self._keys[key_id]).encrypt(nonce, plain, about))

    def open(self, sealed: Sealed, about: bytes) -> bytes:
        """Decrypt with the key that wrote it. Raises ``CredentialsUnreadable``."""
        key = self._key(sealed.key_id)
        try:
            return AESGCM(key).decrypt(sealed.nonce, sealed.ciphertext, about)
        except InvalidTag:
            why = f"the key {sealed.key_id} is not the one that encrypted them"
            raise CredentialsUnreadable(reason=why) from None

    def authenticate(self, key_id: str, purpose: bytes, message: bytes) -> bytes:
        """An HMAC under a key that is derived from this one for a purpose of its own."""
        derived = self._derived.get((key_id, purpose))
        if derived is None:
            kdf = HKDF(SHA256(), KEY_BYTES, salt=None, info=purpose)
            derived = self._derived[key_id, purpose] = kdf.derive(self._key(key_id))
        return hmac.digest(derived, message, "sha256")

    def _key(self, key_id: str) -> bytes:
        if (key := self._keys.get(key_id)) is None:
            why = self.problem or f"the key {key_id} is not in the key ring"
            raise CredentialsUnreadable(reason=why)
        return key


def _pairs(text: str) -> list[str]:
    lines = (line.partition("#")[0] for line in text.splitlines())
    return [pair.strip() for line in lines for pair in line.split(",") if pair.strip()]
