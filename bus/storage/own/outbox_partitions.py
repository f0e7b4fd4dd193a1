"""The partitions of the outbox: ranges of positions, begun and dropped by time.

Partition number n holds the positions from n times ``WIDTH``. When one has been written to for long
enough the sequence moves on to the beginning of the next, so where one ends in time need not be
known before. What no partition is meant for lands in a default one: an insert never fails.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import TextClause, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

WIDTH: Final = 10_000_000_000
"""Positions in a partition: days of work at any rate, and numbers that JavaScript can hold."""

AHEAD: Final = 3
"""Partitions that wait behind the one that is written to."""

PER_RETENTION: Final = 7
"""Partitions that hold what is kept; so up to a seventh more than that is kept."""

_MARGIN: Final = 1_000_000
"""Positions before the end of a partition in which the sequence is left to arrive by itself."""

LOCK_TIMEOUT: Final = 0.05
"""Seconds that a lock on the outbox is waited for, and that anybody can be made to wait for it."""

_LOCK_NOT_AVAILABLE: Final = "55P03"

_NAME: Final = re.compile(r"outbox_(p\d+|default)")
_DEFAULT: Final = "outbox_default"

_PREPARE = text(f"SELECT set_config('lock_timeout', '{int(LOCK_TIMEOUT * 1000)}', false)")

_PARTITIONS = text("""
    SELECT child.relname FROM pg_inherits
    JOIN pg_class AS child ON child.oid = inhrelid
    WHERE inhparent = CAST('bus.outbox' AS regclass)
""")

_CLOCK = text("SELECT clock_timestamp()")

_LAST_POSITION = text("SELECT last_value FROM bus.outbox_position")

_CUT = text("""
    SELECT setval('bus.outbox_position', :first, false) FROM bus.outbox_position
    WHERE last_value < :first - :margin
""")

# One statement, so that whoever runs it cannot be stopped while it keeps everybody waiting. Once it
# has the locks, nobody is left who wrote into the partition and has not committed.
_REMOVE = """
DO $$ BEGIN
    {lock}
    LOCK TABLE bus.{name} IN ACCESS EXCLUSIVE MODE;
    IF NOT ({unpublished}) THEN {remove} TABLE bus.{name}; END IF;
END $$
"""

# What the relay has not come to, or has left out because it was not there yet.
_UNPUBLISHED = """
    EXISTS (
        SELECT FROM bus.{name}
        WHERE position > coalesce((SELECT cursor FROM bus.relay_state WHERE name = 'events'), -1)
    ) OR EXISTS (
        SELECT FROM bus.relay_state AS state, jsonb_array_elements(state.holes) AS hole
        WHERE state.name = 'events' AND EXISTS (
            SELECT FROM bus.{name}
            WHERE position BETWEEN CAST(hole ->> 0 AS bigint) AND CAST(hole ->> 1 AS bigint)
        )
    )
"""


@dataclass(frozen=True)
class Partition:
    """When the first and the last of its rows were recorded; None without rows."""

    number: int
    first: datetime | None
    last: datetime | None


def is_partition(table: str | None) -> bool:
    """Whether a table of the schema ``bus`` is a part of the outbox."""
    return table is not None and _NAME.fullmatch(table) is not None


async def keep(session: AsyncConnection, *, retention: timedelta) -> int:
    """Create, begin and drop partitions as time has come; returns how many it was.

    ``session`` is in autocommit. A lock that cannot be had at once is left to the next round.
    """
    await session.execute(_PREPARE)
    current = int(await session.scalar(_LAST_POSITION) or 0) // WIDTH
    names = set((await session.execute(_PARTITIONS)).scalars())
    partitions = await _read(session, names)
    now = await session.scalar(_CLOCK)
    assert isinstance(now, datetime)

    done = await _drop(session, _forgettable(partitions, current, now - retention))
    done += await _empty_default(session, names, current, now - retention)
    done += await _begin_next(session, partitions, current, now - retention / PER_RETENTION)
    return done + await _extend(session, current, names)


async def _extend(session: AsyncConnection, current: int, names: set[str]) -> int:
    """Create what is missing ahead. Whoever reads or writes the outbox is not in the way."""
    created = 0
    for number in range(current + 1, current + 1 + AHEAD):
        if f"outbox_p{number}" not in names:
            created += await _unless_locked(session, _creation(number))
    return created


def _creation(number: int) -> str:
    name, first, end = f"outbox_p{number}", number * WIDTH, (number + 1) * WIDTH
    return f"""
        DO $$ BEGIN
            CREATE TABLE bus.{name} (
                LIKE bus.outbox INCLUDING DEFAULTS, CONSTRAINT pk_{name} PRIMARY KEY (position)
            );
            ALTER TABLE bus.outbox ATTACH PARTITION bus.{name} FOR VALUES FROM ({first}) TO ({end});
        END $$
    """


async def _begin_next(
    session: AsyncConnection, partitions: list[Partition], current: int, limit: datetime
) -> int:
    """Move on to the next partition if this one's first row is older than the limit."""
    by_number = {partition.number: partition for partition in partitions}
    if current + 1 not in by_number:
        return 0
    # Without a partition of its own the sequence is in the default one, where nothing shall stay.
    if (own := by_number.get(current)) and (own.first is None or own.first >= limit):
        return 0
    values = {"first": (current + 1) * WIDTH, "margin": _MARGIN}
    return int(await session.scalar(_CUT, values) is not None)


def _forgettable(partitions: list[Partition], current: int, limit: datetime) -> list[Partition]:
    """The partitions that were left behind before the limit, the oldest first.

    Whatever stands behind a partition was recorded later, so a clock that ran ahead for a while
    cannot keep one for ever.
    """
    found: list[Partition] = []
    latest = datetime.max.replace(tzinfo=limit.tzinfo)
    for partition in sorted(partitions, key=lambda p: p.number, reverse=True):
        latest = min(latest, partition.last or latest)
        if partition.number < current and (partition.last is None or latest < limit):
            found.append(partition)
        latest = min(latest, partition.first or latest)
    return found[::-1]


async def _drop(session: AsyncConnection, forgettable: list[Partition]) -> int:
    dropped = 0
    for partition in forgettable:
        name = f"outbox_p{partition.number}"
        lock = "LOCK TABLE ONLY bus.outbox IN ACCESS EXCLUSIVE MODE;"
        dropped += await _remove(session, name, "DROP", lock)
    return dropped


async def _empty_default(
    session: AsyncConnection, names: set[str], current: int, limit: datetime
) -> int:
    """Forget what came to lie in the default partition, once the sequence is elsewhere."""
    last = await session.scalar(_end(_DEFAULT, "DESC"))
    if last is None or last >= limit or f"outbox_p{current}" not in names:
        return 0
    return await _remove(session, _DEFAULT, "TRUNCATE", lock="")


async def _remove(session: AsyncConnection, name: str, remove: str, lock: str) -> int:
    unpublished = _UNPUBLISHED.format(name=name)
    if await session.scalar(text(f"SELECT {unpublished}")):
        return 0
    statement = _REMOVE.format(name=name, lock=lock, unpublished=unpublished, remove=remove)
    return await _unless_locked(session, statement)


async def _unless_locked(session: AsyncConnection, statement: str) -> int:
    try:
        await session.execute(text(statement))
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
            raise
        return 0
    return 1


async def _read(session: AsyncConnection, names: set[str]) -> list[Partition]:
    numbers = sorted(int(name.removeprefix("outbox_p")) for name in names - {_DEFAULT})
    return [
        Partition(
            number,
            await session.scalar(_end(f"outbox_p{number}", "ASC")),
            await session.scalar(_end(f"outbox_p{number}", "DESC")),
        )
        for number in numbers
    ]


def _end(name: str, order: str) -> TextClause:
    return text(f"SELECT recorded_at FROM bus.{name} ORDER BY position {order} LIMIT 1")
