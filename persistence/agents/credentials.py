"""Credentials as they are kept: sealed, and in no query of accounts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from persistence.agents.tables import credentials


class Kept(NamedTuple):
    """Sealed credentials of an account."""

    account_id: UUID
    key_id: str
    nonce: bytes
    ciphertext: bytes


_COLUMNS = (credentials.c.id, credentials.c.key_id, credentials.c.nonce, credentials.c.ciphertext)


async def keep(db: AsyncConnection, kept: Kept) -> None:
    """Keep credentials in place of any there were."""
    values = {"key_id": kept.key_id, "nonce": kept.nonce, "ciphertext": kept.ciphertext}
    statement = insert(credentials).values(id=kept.account_id, **values)
    changed = {**values, "version": credentials.c.version + 1, "updated_at": func.now()}
    await db.execute(statement.on_conflict_do_update(index_elements=["id"], set_=changed))


async def forget(db: AsyncConnection, account_id: UUID) -> None:
    """Forget the credentials of an account, if there are any."""
    await db.execute(delete(credentials).where(credentials.c.id == account_id))


async def find(db: AsyncConnection, account_id: UUID) -> Kept | None:
    """The credentials of an account, sealed."""
    row = (await db.execute(select(*_COLUMNS).where(credentials.c.id == account_id))).one_or_none()
    return None if row is None else Kept(*row)


async def count_by_key(db: AsyncConnection) -> dict[str, int]:
    """How many credentials each key has written, by the ids of the keys."""
    counted = select(credentials.c.key_id, func.count().label("written"))
    rows = await db.execute(counted.group_by(credentials.c.key_id))
    return {row.key_id: row.written for row in rows}


async def lock_outdated(
    db: AsyncConnection, *, newest: str, readable: Sequence[str], limit: int
) -> list[Kept]:
    """Lock credentials that another key than the newest wrote, of those that can be read."""
    statement = (
        select(*_COLUMNS)
        .where(credentials.c.key_id != newest, credentials.c.key_id.in_(readable))
        .order_by(credentials.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return [Kept(*row) for row in await db.execute(statement)]
