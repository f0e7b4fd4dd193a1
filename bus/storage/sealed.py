"""Secrets at rest: AES-256-GCM with a ring of keys of which the first one writes.

A table of them says whose they are: ``class Credentials(SealedRow, owner=Account)``. All tables
together are counted, and encrypted anew when keys change.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import LargeBinary, Table, delete, func, select, union_all
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import Mapped, mapped_column

from bus.contract.entity import Entity
from bus.contract.errors import CredentialsUnreadable
from bus.storage.companions import CompanionRow
from bus.storage.tables import table

log = logging.getLogger("fleetbus.keys")

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


@dataclass(frozen=True)
class SealedTable:
    """A table of secrets: what is kept for an owner opens with a key of the ring, for it alone."""

    table: Table
    owner: type[Entity]
    named: bool
    """Whether the table's name is part of what opens a secret."""

    async def keep(self, db: AsyncConnection, keys: KeyRing, owner_id: UUID, plain: bytes) -> None:
        """Keep a secret in place of any there was. Raises ``CredentialsUnreadable``."""
        values = keys.seal(plain, self._about(owner_id))._asdict()
        statement = insert(self.table).values(id=owner_id, **values)
        changed = {**values, "version": self.table.c.version + 1, "updated_at": func.now()}
        await db.execute(statement.on_conflict_do_update(index_elements=["id"], set_=changed))

    async def find(self, db: AsyncConnection, keys: KeyRing, owner_id: UUID) -> bytes | None:
        """The secret of an owner, if it has one. Raises ``CredentialsUnreadable``."""
        found = await db.execute(self._select().where(self.table.c.id == owner_id))
        row = found.one_or_none()
        return None if row is None else self._opened(keys, row)

    async def forget(self, db: AsyncConnection, owner_id: UUID) -> None:
        """Forget the secret of an owner, if it has one."""
        await db.execute(delete(self.table).where(self.table.c.id == owner_id))

    async def rotate(self, db: AsyncConnection, keys: KeyRing, *, limit: int) -> int:
        """Encrypt with the newest key what an older one of the ring did; returns how many."""
        key_id = self.table.c.key_id
        outdated = (
            self._select()
            .where(key_id != keys.newest, key_id.in_(keys.ids))
            .order_by(self.table.c.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        rotated = 0
        for row in (await db.execute(outdated)).all():
            try:
                plain = self._opened(keys, row)
            except CredentialsUnreadable as unreadable:
                about = self.table.name, self.owner.noun, row.id, unreadable.detail
                log.warning("%s of %s %s: %s", *about)
                continue
            await self.keep(db, keys, row.id, plain)
            rotated += 1
        return rotated

    def _select(self) -> Any:
        columns = self.table.c
        return select(columns.id, columns.key_id, columns.nonce, columns.ciphertext)

    def _opened(self, keys: KeyRing, row: Any) -> bytes:
        return keys.open(Sealed(row.key_id, row.nonce, row.ciphertext), self._about(row.id))

    def _about(self, owner_id: UUID) -> bytes:
        return f"{self.table.fullname}:".encode() + owner_id.bytes if self.named else owner_id.bytes


SEALED: dict[str, SealedTable] = {}
"""Every table of secrets by its name with its schema."""


class SealedRow(CompanionRow):
    """A table of secrets, one of an owner at most, under the owner's id and gone with it.

    They lie apart, so that no query of the owners can come upon them. ``named=False`` is for what
    was encrypted before there was a second table: its name is not part of what opens it.
    """

    __abstract__ = True

    key_id: Mapped[str] = mapped_column(index=True)
    nonce: Mapped[bytes] = mapped_column(LargeBinary)
    ciphertext: Mapped[bytes] = mapped_column(LargeBinary)

    sealed: ClassVar[SealedTable]

    def __init_subclass__(cls, *, named: bool = True, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        held = table(cls)
        SEALED[held.fullname] = cls.sealed = SealedTable(held, cls.owned_by, named)


async def rotate(db: AsyncConnection, keys: KeyRing, *, limit: int) -> int:
    """Encrypt with the newest key what older ones did, whatever it is; nothing of it is told."""
    rotated = 0
    if keys.newest is not None:
        for one in SEALED.values():
            if rotated < limit:
                rotated += await one.rotate(db, keys, limit=limit - rotated)
    return rotated


async def count_by_key(db: AsyncConnection) -> dict[str, int]:
    """How many secrets each key has written, in all tables, by the ids of the keys."""
    columns = [one.table.c.key_id for one in SEALED.values()]
    counts = [select(key_id, func.count().label("written")).group_by(key_id) for key_id in columns]
    written: Counter[str] = Counter()
    if counts:
        for row in await db.execute(union_all(*counts)):
            written[row.key_id] += row.written
    return dict(written)
