"""Tables with a partition for each day in UTC, made ahead and dropped by age.

A table says it in its class statement: ``class LogChunk(Row, daily=Daily(...))``; its migration
makes the parent, partitioned by ``created_at`` or the column that is named, and the default
partition. What comes on a day without a partition lands in the default one: an insert never fails.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from sqlalchemy import DateTime, Integer, Text, TextClause, bindparam, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

AHEAD: Final = 7
"""Days for which there is a partition before they come."""

LOCK_TIMEOUT: Final = 0.05
"""Seconds that a lock is waited for, and that anybody can be made to wait for it."""

PER_ROUND: Final = 10_000
"""Rows that a round deletes from the default partition."""

_NAME: Final = re.compile(r"(?P<table>[a-z_]+)_(?:d(?P<day>\d{8})|default)")

_PREPARE = text(f"SELECT set_config('lock_timeout', '{int(LOCK_TIMEOUT * 1000)}', false)")

_CLOCK = text("SELECT clock_timestamp()")

_PARTITIONS = text("""
    SELECT child.relname FROM pg_inherits
    JOIN pg_class AS child ON child.oid = inhrelid
    WHERE inhparent = CAST(:parent AS regclass)
""").bindparams(bindparam("parent", type_=Text))


@dataclass(frozen=True)
class Daily:
    """How a table is kept in partitions by day."""

    job: str
    """The name under which the sweeper keeps it."""
    retention: str
    """The setting that says for how many days."""
    column: str = "created_at"
    """When a row was made."""


@dataclass(frozen=True)
class Partitioned:
    """A table that is kept in partitions by day."""

    schema: str
    table: str
    daily: Daily

    @property
    def parent(self) -> str:
        """The table with its schema."""
        return f"{self.schema}.{self.table}"

    def of(self, day: date) -> str:
        """The name of the partition for a day."""
        return f"{self.table}_d{day:%Y%m%d}"

    def day(self, partition: str) -> date | None:
        """The day of a partition by its name; None for the default one."""
        match = _NAME.fullmatch(partition)
        if match is None or match["table"] != self.table or match["day"] is None:
            return None
        return datetime.strptime(match["day"], "%Y%m%d").replace(tzinfo=UTC).date()


PARTITIONED: dict[str, Partitioned] = {}
"""Every table with daily partitions, by its name without the schema."""


def is_daily(table: str | None) -> bool:
    """Whether a table is the partition of a day, or the default one."""
    match = None if table is None else _NAME.fullmatch(table)
    return match is not None and match["table"] in PARTITIONED


async def keep(session: AsyncConnection, table: Partitioned, *, retention: timedelta) -> int:
    """Create and drop partitions as time has come; returns how many it was.

    ``session`` is in autocommit. A lock that cannot be had at once is left to the next round.
    """
    await session.execute(_PREPARE)
    now = await session.scalar(_CLOCK)
    assert isinstance(now, datetime)
    names = set((await session.execute(_PARTITIONS, {"parent": table.parent})).scalars())

    done = 0
    for day in (now.astimezone(UTC).date() + timedelta(days=n) for n in range(AHEAD + 1)):
        if table.of(day) not in names:
            done += await _create(session, table, day)
    for name in sorted(names):
        if (last := table.day(name)) is not None and _start(
            last + timedelta(days=1)
        ) < now - retention:
            done += await _unless_locked(session, f"DROP TABLE {table.schema}.{name}")
    forgotten = {"before": now - retention, "limit": PER_ROUND}
    await session.execute(_forget_default(table), forgotten)
    return done


async def _create(session: AsyncConnection, table: Partitioned, day: date) -> int:
    """A partition for a day, unless some of it has come to lie in the default one already."""
    first, following = _start(day), _start(day + timedelta(days=1))
    if await session.scalar(_in_default(table), {"first": first, "next": following}):
        return 0
    return await _unless_locked(
        session,
        f"CREATE TABLE {table.schema}.{table.of(day)} PARTITION OF {table.parent} "
        f"FOR VALUES FROM ('{first.isoformat()}') TO ('{following.isoformat()}')",
    )


def _in_default(table: Partitioned) -> TextClause:
    column = table.daily.column
    return text(f"""
        SELECT EXISTS (
            SELECT FROM {table.parent}_default WHERE {column} >= :first AND {column} < :next
        )
    """)


def _forget_default(table: Partitioned) -> TextClause:
    column = table.daily.column
    return text(f"""
        DELETE FROM {table.parent}_default WHERE (id, {column}) IN (
            SELECT id, {column} FROM {table.parent}_default
            WHERE {column} < :before LIMIT :limit
        )
    """).bindparams(
        bindparam("before", type_=DateTime(timezone=True)), bindparam("limit", type_=Integer)
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


def _start(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
