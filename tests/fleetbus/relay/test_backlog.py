"""The backlog: what the stream is still owed, counted without reading the outbox."""

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage.own import outbox as _outbox
from tests.fleetbus.relay.running import record_many, session_of

STATE = """
    INSERT INTO bus.relay_state (name, cursor, holes)
    VALUES ('events', :cursor, CAST(:holes AS jsonb))
"""

ROWS_READ = """
    SELECT CAST(
        (SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE relname LIKE 'outbox%')
        + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname LIKE 'outbox%')
        AS bigint)
"""


@pytest.fixture
async def ten_events(database_url: str) -> None:
    async with session_of(database_url) as session:
        await record_many(session, 10)
        await session.execute(
            "UPDATE bus.outbox SET recorded_at = recorded_at - interval '1 hour' WHERE position = 4"
        )


async def test_of_an_empty_outbox_it_is_nothing(db: AsyncConnection) -> None:
    assert await _outbox.backlog(db) == (0, None, 0, 0, 0)


@pytest.mark.usefixtures("ten_events")
class TestBacklog:
    async def test_before_the_first_relay_it_is_everything(self, db: AsyncConnection) -> None:
        found = await _outbox.backlog(db)
        assert (found.waiting, found.position, found.cursor, found.holes) == (10, 10, 0, 0)
        assert found.oldest is not None

    async def test_beyond_the_cursor(self, db: AsyncConnection) -> None:
        await db.execute(text(STATE), {"cursor": 7, "holes": "[]"})
        found = await _outbox.backlog(db)
        assert (found.waiting, found.cursor) == (3, 7)
        assert found.oldest is not None
        assert found.oldest.total_seconds() < 3600

    async def test_all_published(self, db: AsyncConnection) -> None:
        await db.execute(text(STATE), {"cursor": 10, "holes": "[]"})
        assert await _outbox.backlog(db) == (0, None, 10, 10, 0)

    async def test_what_appeared_in_a_hole_waits_too(self, db: AsyncConnection) -> None:
        await db.execute(text(STATE), {"cursor": 10, "holes": "[[3, 5]]"})
        found = await _outbox.backlog(db)
        assert (found.waiting, found.holes) == (3, 3)
        assert found.oldest is not None
        assert found.oldest.total_seconds() > 3600

    async def test_a_hole_that_nothing_appeared_in_does_not(self, db: AsyncConnection) -> None:
        await db.execute(text("DELETE FROM bus.outbox WHERE position BETWEEN 3 AND 5"))
        await db.execute(text(STATE), {"cursor": 10, "holes": "[[3, 5]]"})
        assert await _outbox.backlog(db) == (0, None, 10, 10, 3)


async def test_it_reads_a_few_rows_of_many(database_url: str, db: AsyncConnection) -> None:
    async with session_of(database_url) as session:
        await record_many(session, 20_000)
        await session.execute("ANALYZE bus.outbox")
        await session.execute("SELECT pg_stat_force_next_flush()")
    await db.execute(text(STATE), {"cursor": 10, "holes": "[[3, 5], [7, 7]]"})
    before = await rows_read(database_url)

    assert (await _outbox.backlog(db)).waiting == 19_994

    await db.execute(text("SELECT pg_stat_force_next_flush()"))
    await db.execute(text("SELECT 1"))
    assert await rows_read(database_url) - before < 20


async def rows_read(database_url: str) -> int:
    """Rows of the outbox that any statement has read so far."""
    connection = await asyncpg.connect(database_url)
    try:
        return int(await connection.fetchval(ROWS_READ))
    finally:
        await connection.close()
