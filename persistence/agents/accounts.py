"""Queries of accounts: whose turn it is, and which may be used again."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Integer,
    Select,
    Text,
    Uuid,
    bindparam,
    func,
    or_,
    select,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage import AdvisoryLock, Listing, columns, either, entity_from, equal
from contracts.agents.accounts import Account, ListAccounts
from persistence.agents.tables import account

TURN = AdvisoryLock("agents.turn", "One at a time takes the next account of a provider.")

_PROVIDER = account.c.provider == bindparam("provider", type_=Text)


def exhausted_at(now: ColumnElement[datetime]) -> ColumnElement[bool]:
    """Whether an account is exhausted at a time: not if its own time has passed by then."""
    until = account.c.exhausted_until
    return account.c.is_exhausted & or_(until.is_(None), until > now)


def _next() -> Select[tuple[object, ...]]:
    used = account.alias("used")
    last = select(func.max(used.c.last_used_at)).where(used.c.provider == account.c.provider)
    return (
        columns(Account)
        .add_columns(last.scalar_subquery().label("last"))
        .where(
            _PROVIDER,
            ~exhausted_at(bindparam("now", type_=DateTime(timezone=True))),
            account.c.id.is_distinct_from(bindparam("besides", type_=Uuid)),
        )
        .order_by(
            account.c.last_used_at.asc().nulls_first(),
            account.c.sort_order,
            account.c.created_at,
            account.c.id,
        )
        .limit(1)
    )


_NEXT_FREE = _next().with_for_update(of=account, key_share=True, skip_locked=True)
_NEXT = _next().with_for_update(of=account, key_share=True)

_EARLIEST = select(func.min(account.c.exhausted_until)).where(_PROVIDER, account.c.is_exhausted)

_LOCK_ENDED = (
    columns(Account)
    .where(
        account.c.is_exhausted,
        account.c.exhausted_until <= bindparam("now", type_=DateTime(timezone=True)),
    )
    .order_by(account.c.exhausted_until, account.c.id)
    .limit(bindparam("limit", type_=Integer))
    .with_for_update(key_share=True, skip_locked=True)
)


async def lock_turn(db: AsyncConnection, provider: str) -> datetime:
    """Be the only one who takes an account of a provider; the time since which that is so."""
    return await TURN.hold(db, provider)


async def lock_next(
    db: AsyncConnection, provider: str, *, now: datetime, besides: UUID | None
) -> tuple[Account, datetime | None] | None:
    """Lock the account that has rested longest; with it, when any of the provider was used last.

    One that is being changed is passed over: whoever changes it may be waiting for the turn. It is
    waited for if there is no other. The turn must be held.
    """
    values = {"provider": provider, "now": now, "besides": besides}
    for statement in (_NEXT_FREE, _NEXT):
        row = (await db.execute(statement, values)).one_or_none()
        if row is not None:
            return entity_from(Account, row), row.last
    return None


async def earliest_end(db: AsyncConnection, provider: str) -> datetime | None:
    """When the first of a provider's exhausted accounts is available again, if one says so."""
    found = await db.execute(_EARLIEST, {"provider": provider})
    earliest: datetime | None = found.scalar_one()
    return earliest


async def lock_ended(db: AsyncConnection, *, now: datetime, limit: int) -> list[Account]:
    """Lock accounts whose exhaustion is over, the longest over first; those in work are left."""
    rows = await db.execute(_LOCK_ENDED, {"now": now, "limit": limit})
    return [entity_from(Account, row) for row in rows]


Listing(
    ListAccounts,
    {
        **equal(account, "provider"),
        "exhausted": either(exhausted_at(bindparam("now", type_=DateTime(timezone=True)))),
    },
    by_now=True,
)
