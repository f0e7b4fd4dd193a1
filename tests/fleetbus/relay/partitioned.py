"""An outbox whose events grow old, and transactions that somebody forgot."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage.own import outbox_partitions as _outbox_partitions
from tests.fleetbus.relay.running import Session, record, session_of

WEEK = timedelta(days=7)
NAMES = """
    SELECT child.relname FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
    WHERE inhparent = 'bus.outbox'::regclass ORDER BY 1
"""


async def names(session: Session) -> set[str]:
    return {row[0] for row in await session.fetch(NAMES)}


def numbered(first: int, last: int) -> set[str]:
    return {"outbox_default", *(f"outbox_p{number}" for number in range(first, last + 1))}


async def keep(db: AsyncConnection) -> int:
    return await _outbox_partitions.keep(db, retention=WEEK)


async def pass_time(session: Session, *, days: float) -> None:
    """Everything was recorded so much earlier."""
    await session.execute(
        "UPDATE bus.outbox SET recorded_at = recorded_at - make_interval(secs => $1)",
        days * 86_400.0,
    )


async def published(session: Session) -> None:
    """As if a relay had published all there is."""
    await session.execute("""
        INSERT INTO bus.relay_state (name, cursor) SELECT 'events', max(position) FROM bus.outbox
        ON CONFLICT (name) DO UPDATE SET cursor = excluded.cursor, holes = '[]'
    """)


async def positions(session: Session) -> list[int]:
    rows = await session.fetch("SELECT position FROM bus.outbox ORDER BY position")
    return [position for (position,) in rows]


async def live(db: AsyncConnection, session: Session, days: int) -> None:
    """So many days on which events are recorded and published, and the sweeper comes by."""
    for _ in range(days):
        await keep(db)
        await record(session, "today")
        await published(session)
        await pass_time(session, days=1.01)


@asynccontextmanager
async def held_open(database_url: str, *statements: str) -> AsyncIterator[Session]:
    """A transaction that somebody forgot."""
    async with session_of(database_url) as forgotten:
        await forgotten.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        for statement in statements:
            await forgotten.execute(statement)
        yield forgotten


READING = "SELECT count(*) FROM bus.outbox"
WRITING = (
    "INSERT INTO bus.outbox (event_id, type, entity_id, data) "
    "VALUES (gen_random_uuid(), 'task.completed', 'slow', '{}')"
)
