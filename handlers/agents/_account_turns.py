"""Whose turn it is, and when an account that was exhausted may be used again."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import Event
from bus.handling import Decision, Emit, carry_out, periodic
from contracts.agents.accounts import (
    Account,
    AccountAvailable,
    AccountUpdated,
    NoAccountAvailable,
)
from persistence.agents import accounts

TICK = timedelta(microseconds=1)
"""What Postgres can tell apart."""


async def take_next(
    db: AsyncConnection, emit: Emit, provider: str, *, now: datetime, besides: UUID | None = None
) -> Account:
    """Take the account of a provider that has rested longest, other than ``besides``.

    Holds the provider's turn until the transaction ends; whoever takes accounts of several
    providers does so in the order of their names. Raises ``NoAccountAvailable``.
    """
    now = max(now, await accounts.lock_turn(db, provider))
    found = await accounts.lock_next(db, provider, now=now, besides=besides)
    if found is None:
        raise NoAccountAvailable(
            provider=provider, earliest=await accounts.earliest_end(db, provider)
        )
    taken = take(*found, now)

    await carry_out([taken], db=db, emit=emit)

    return taken.entity


def take(account: Account, last_used_at: datetime | None, now: datetime) -> Decision[Account]:
    """The account as it is used; ``last_used_at`` is when any of its provider was used last."""
    events: list[Event] = []
    if account.is_exhausted:
        account = available(account, now)
        events.append(AccountAvailable(account=account))
    used = account.evolve(now, last_used_at=stamp(now, last_used_at))

    return Decision(used, *events, AccountUpdated(account=used))


def stamp(now: datetime, last: datetime | None) -> datetime:
    """When an account is used: later than any other before, whatever the clock says."""
    return now if last is None else max(now, last + TICK)


def ends_later(until: datetime | None, known: datetime | None) -> bool:
    """Whether a report says more than is known; None is no end that anybody can name."""
    return known is not None and (until is None or until > known)


def available(account: Account, now: datetime) -> Account:
    """The account as it is once its provider serves it again."""
    return account.evolve(now, is_exhausted=False, exhausted_until=None)


def recover(account: Account, now: datetime) -> Decision[Account]:
    """The account whose provider serves it again."""
    back = available(account, now)

    return Decision(back, AccountAvailable(account=back))


@periodic(every=1.0, limit=100, emits=(AccountAvailable,))
async def end_exhaustion(*, db: AsyncConnection, emit: Emit, now: datetime, limit: int) -> int:
    """Make accounts available whose time has come; returns how many, ``limit`` at most."""
    over = await accounts.lock_ended(db, now=now, limit=limit)

    decisions = [recover(account, now) for account in over]
    await carry_out(decisions, db=db, emit=emit)

    return len(decisions)
