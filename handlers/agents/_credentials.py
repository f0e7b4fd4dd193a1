"""Credentials: sealed on the way in, opened on the way out, and sealed anew when keys change."""

from __future__ import annotations

import logging
from uuid import UUID

import pydantic_core
from pydantic import JsonValue
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import CredentialsUnreadable
from bus.handling import periodic
from bus.storage import KeyRing, Sealed
from persistence.agents import credentials as _credentials
from persistence.agents.credentials import Kept

log = logging.getLogger("fleetbus.agents")


def sealed(keys: KeyRing, account_id: UUID, plain: dict[str, JsonValue]) -> Kept:
    """Credentials that open for this account only."""
    return Kept(account_id, *keys.seal(pydantic_core.to_json(plain), account_id.bytes))


def opened(keys: KeyRing, kept: Kept) -> dict[str, JsonValue]:
    """Credentials in plain text. Raises ``CredentialsUnreadable``."""
    plain = keys.open(Sealed(kept.key_id, kept.nonce, kept.ciphertext), kept.account_id.bytes)
    found: dict[str, JsonValue] = pydantic_core.from_json(plain)
    return found


@periodic(every=60.0, limit=100)
async def rotate_credentials(*, db: AsyncConnection, keys: KeyRing, limit: int) -> int:
    """Seal with the newest key what an older one wrote; nothing of it is told."""
    if keys.newest is None:
        return 0
    outdated = await _credentials.lock_outdated(
        db, newest=keys.newest, readable=keys.ids, limit=limit
    )

    rotated = 0
    for kept in outdated:
        try:
            anew = sealed(keys, kept.account_id, opened(keys, kept))
        except CredentialsUnreadable as unreadable:
            log.warning("credentials of account %s: %s", kept.account_id, unreadable.detail)
            continue
        await _credentials.keep(db, anew)
        rotated += 1

    return rotated
