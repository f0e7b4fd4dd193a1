"""Credentials as they are kept: sealed, and in no query of accounts."""

from __future__ import annotations

from uuid import UUID

import pydantic_core
from pydantic import JsonValue
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage import KeyRing
from persistence.agents.tables import credentials


async def keep(
    db: AsyncConnection, keys: KeyRing, account_id: UUID, plain: dict[str, JsonValue]
) -> None:
    """Keep credentials in place of any there were. Raises ``CredentialsUnreadable``."""
    await credentials.keep(db, keys, account_id, pydantic_core.to_json(plain))


async def forget(db: AsyncConnection, account_id: UUID) -> None:
    """Forget the credentials of an account, if there are any."""
    await credentials.forget(db, account_id)


async def find(db: AsyncConnection, keys: KeyRing, account_id: UUID) -> dict[str, JsonValue] | None:
    """The credentials of an account, in plain text. Raises ``CredentialsUnreadable``."""
    plain = await credentials.find(db, keys, account_id)
    if plain is None:
        return None
    found: dict[str, JsonValue] = pydantic_core.from_json(plain)
    return found
