"""The partitions of the log chunks: one for each day in UTC, made ahead and dropped by age.

What comes on a day without a partition lands in a default one: an append never fails.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Final

from sqlalchemy import DateTime, Integer, bindparam, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

AHEAD: Final = 7
"""Days for which there is a partition before they come."""

LOCK_TIMEOUT: Final = 0.05
"""Seconds that a lock is waited for, and that anybody can be made to wait for it."""

PER_ROUND: Final = 10_000
"""Chunks that a round deletes from the default partition."""

_NAME: Final = re.compile(r"log_chunks_(?:d(\d{8})|default)")

_PREPARE = text(f"SELECT set_config('lock_timeout', '{int(LOCK_TIMEOUT * 1000)}', false)")

_CLOCK = text("SELECT clock_timestamp()")

_PARTITIONS = text("""
    SELECT child.relname FROM pg_inherits
    JOIN pg_class AS child ON child.oid = inhrelid
    WHERE inhparent = CAST('agents.log_chunks' AS regclass)
""")

_IN_DEFAULT = text("""
    SELECT EXISTS (
        SELECT FROM agents.log_chunks_default WHERE created_at >= :first AND created_at < :next
    )
""")

_FORGET_DEFAULT = text("""
    DELETE FROM agents.log_chunks_default WHERE (id, created_at) IN (
        SELECT id, created_at FROM agents.log_chunks_default
        WHERE created_at < :before LIMIT :limit
    )
""").bindparams(
    bindparam("before", type_=DateTime(timezone=True)), bindparam("limit", type_=Integer)
)


def is_partition(table: str | None) -> bool:
    """Whether a table of the schema ``agents`` is a part of the log chunks."""
    return table is not None and _NAME.fullmatch(table) is not None


async def keep(session: AsyncConnection, *, retention: timedelta) -> int:
    """Create and drop partitions as time has come; returns how many it was.

    ``session`` is in autocommit. A lock that cannot be had at once is left to the next round.
    """
    await session.execute(_PREPARE)
    now = await session.scalar(_CLOCK)
    assert isinstance(now, datetime)
    names = set((await session.execute(_PARTITIONS)).scalars())

    done = 0
    for day in (now.astimezone(UTC).date() + timedelta(days=n) for n in range(AHEAD + 1)):
        if _name(day) not in names:
            done += await _create(session, day)
    for name in sorted(names):
        if (last := _day(name)) is not None and _start(last + timedelta(days=1)) < now - retention:
            done += await _unless_locked(session, f"DROP TABLE agents.{name}")
    await session.execute(_FORGET_DEFAULT, {"before": now - retention, "limit": PER_ROUND})
    return done


async def _create(session: AsyncConnection, day: date) -> int:
    """A partition for a day, unless some of it has come to lie in the default one already."""
    first, following = _start(day), _start(day + timedelta(days=1))
    if await session.scalar(_IN_DEFAULT, {"first": first, "next": following}):
        return 0
    return await _unless_locked(
        session,
        f"CREATE TABLE agents.{_name(day)} PARTITION OF agents.log_chunks "
        f"FOR VALUES FROM ('{first.isoformat()}') TO ('{following.isoformat()}')",
    )


async def _unless_locked(session: AsyncConnection, statement: str) -> int:
    try:
        await session.execute(text(statement.replace(":", r"\:")))
    except DBAPIError as error:
        # 55P03: somebody holds a lock. 23514: a chunk of that day came in between.
        if getattr(error.orig, "sqlstate", None) not in {"55P03", "23514"}:
            raise
        return 0
    return 1


def _name(day: date) -> str:
    return f"log_chunks_d{day:%Y%m%d}"


def _day(name: str) -> date | None:
    match = _NAME.fullmatch(name)
    if match is None or match[1] is None:
        return None
    return datetime.strptime(match[1], "%Y%m%d").replace(tzinfo=UTC).date()


def _start(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
