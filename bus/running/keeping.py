"""How the reply of a command is kept with its idempotency key, and how it is found again.

Of a secret command neither the reply nor a hash that somebody could try guesses on is kept: the
reply is sealed, and the fingerprint of the request is an HMAC. Its first words say by which key.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import dataclass, replace
from typing import Final

import pydantic_core

from bus.contract.errors import CredentialsUnreadable, IdempotencyKeyReused
from bus.running.calls import Answer, Call
from bus.storage.own.commit import KeptReply, Opening, StoredReply
from bus.storage.sealed import NONCE_BYTES, KeyRing, Sealed

_SEALED: Final = "sealed"
_PURPOSE: Final = b"fleetbus: fingerprints of secret commands"


def require_keys(keys: KeyRing) -> None:
    """Refuse an idempotency key of a secret command where no reply can be kept with it."""
    if keys.newest is None:
        why = f"{keys.problem}; without one a secret command takes no idempotency key"
        raise CredentialsUnreadable(reason=why)


def kept_reply(call: Call, answer: Answer) -> KeptReply:
    """What is stored with the key of a call."""
    key, reply = str(call.key), answer.body.decode()
    if call.sealing is None:
        return KeptReply(key, call.fingerprint, answer.status, reply)
    sealing = _Sealing(call.sealing, call)
    return KeptReply(key, sealing.fingerprint(), answer.status, sealing.seal(answer.body))


def replay(call: Call, opening: Opening) -> Answer | None:
    """The answer that the key of a call has already, or the refusal of a key used otherwise."""
    stored = opening.stored.get(call.key) if call.key is not None else None
    if stored is None:
        return None
    if call.sealing is not None and stored.fingerprint.startswith(f"{_SEALED}:"):
        return _unsealed(_Sealing(call.sealing, call), stored)
    if stored.fingerprint != call.fingerprint:
        return Answer.refused(IdempotencyKeyReused(key=stored.key))
    return Answer.stored(stored)


def _unsealed(sealing: _Sealing, stored: StoredReply) -> Answer:
    """The same of a reply that was sealed; where its key is gone, that, and nothing is repeated."""
    _, key_id, _ = stored.fingerprint.split(":", 2)
    try:
        if not hmac.compare_digest(stored.fingerprint, sealing.fingerprint(key_id)):
            return Answer.refused(IdempotencyKeyReused(key=stored.key))
        return Answer.stored(replace(stored, reply=sealing.open(key_id, stored.reply)))
    except CredentialsUnreadable as unreadable:
        return Answer.refused(unreadable)


@dataclass(frozen=True, slots=True)
class _Sealing:
    """Seals for one caller and key: what is copied to another row does not open there."""

    keys: KeyRing
    call: Call

    def fingerprint(self, key_id: str | None = None) -> str:
        """What stands for the request, under the key with this id or the newest."""
        key_id = key_id or str(self.keys.newest)
        message = self._about() + self.call.fingerprint.encode()
        return f"{_SEALED}:{key_id}:{self.keys.authenticate(key_id, _PURPOSE, message).hex()}"

    def seal(self, reply: bytes) -> str:
        sealed = self.keys.seal(reply, self._about())
        return base64.b64encode(sealed.nonce + sealed.ciphertext).decode()

    def open(self, key_id: str, text: str) -> str:
        try:
            raw = base64.b64decode(text, validate=True)
        except binascii.Error:
            raise CredentialsUnreadable(reason="the kept reply is damaged") from None
        sealed = Sealed(key_id, raw[:NONCE_BYTES], raw[NONCE_BYTES:])
        return self.keys.open(sealed, self._about()).decode()

    def _about(self) -> bytes:
        return pydantic_core.to_json(["bus.requests", self.call.caller, self.call.key])
