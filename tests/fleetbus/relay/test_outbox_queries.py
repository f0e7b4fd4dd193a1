"""What the partitions of the outbox mean for the relay's statements, its state, and a migration."""

from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from bus.storage.database import driver_url
from bus.storage.own import outbox as _outbox
from bus.storage.own.outbox_partitions import AHEAD, WIDTH
from fleetbus.server import migrate
from tests.fleetbus.relay.partitioned import held_open, keep, names, numbered, positions, published
from tests.fleetbus.relay.running import INSERT, Session, record, record_many, session_of


class TestPlans:
    @pytest.mark.parametrize("plan", ["force_custom_plan", "force_generic_plan"])
    async def test_the_relay_reads_index_pages_of_recent_partitions_only(
        self, database_url: str, db: AsyncConnection, plan: str
    ) -> None:
        async with session_of(database_url) as session:
            for number in range(AHEAD + 1):
                await session.execute(f"SELECT setval('bus.outbox_position', {number * WIDTH + 1})")
                await record_many(session, 3000)
            await session.execute("ANALYZE bus.outbox")
            await session.execute(f"SET plan_cache_mode = {plan}")
            explained = await explain_read(session, after=AHEAD * WIDTH)

        scanned = [line for line in explained if "never executed" not in line and " on " in line]
        assert any(f"outbox_p{AHEAD}" in line for line in scanned)
        assert not [line for line in scanned if "Seq Scan on outbox_p" in line]
        for number in range(AHEAD):
            assert not [line for line in scanned if f"outbox_p{number}" in line]


async def explain_read(session: Session, *, after: int) -> list[str]:
    """What the relay's statement does, with one hole and all that lies beyond the cursor."""
    query = str(_outbox._READ)
    for number, name in enumerate(("firsts", "lasts", "page", "lookahead"), start=1):
        query = query.replace(f":{name}", f"${number}")
    await session.execute(f"PREPARE look (bigint[], bigint[], bigint, bigint) AS {query}")
    firsts, lasts = f"{{{after + 5},{after + 100}}}", f"{{{after + 9},{2**63 - 1}}}"
    rows = await session.fetch(
        f"EXPLAIN (ANALYZE, TIMING OFF) EXECUTE look ('{firsts}', '{lasts}', 1000, 10000)"
    )
    return [row[0] for row in rows]


class TestMigration:
    async def test_rows_positions_and_sequence_are_carried_over(
        self, database_url: str, db: AsyncConnection
    ) -> None:
        async with session_of(database_url) as session:
            await migrate.downgrade(database_url, "0003")
            assert not await names(session)
            await record(session, "a", "b")
            before = await session.fetch("SELECT * FROM bus.outbox ORDER BY position")
            await session.fetchval("SELECT nextval('bus.outbox_position')")

            await migrate.upgrade(database_url)
            assert await session.fetch("SELECT * FROM bus.outbox ORDER BY position") == before
            await record(session, "c")
            assert await positions(session) == [1, 2, 4]

            await migrate.downgrade(database_url, "0003")
            assert await positions(session) == [1, 2, 4]
            with pytest.raises(Exception, match="uq_outbox__event_id"):
                await session.executemany(INSERT, [(uuid4(), "t", "e", "{}")] * 2)

    async def test_positions_beyond_the_first_partition(
        self, database_url: str, db: AsyncConnection
    ) -> None:
        async with session_of(database_url) as session:
            await migrate.downgrade(database_url, "0003")
            await record(session, "a")
            await session.execute(f"SELECT setval('bus.outbox_position', {5 * WIDTH + 7})")
            await migrate.upgrade(database_url)
            await record(session, "b")

            assert await positions(session) == [1, 5 * WIDTH + 8]
            assert await names(session) == numbered(5, 5 + AHEAD)
            assert await session.fetchval(
                "SELECT count(*) FROM bus.outbox_p5"
            ) == await session.fetchval("SELECT count(*) FROM bus.outbox")
            assert await keep(db) == 0
            assert (await db.execute(text("SELECT count(*) FROM bus.outbox_default"))).scalar() == 0


class TestRelayState:
    async def test_saving_costs_the_same_while_somebody_reads_an_old_snapshot(
        self, database_url: str
    ) -> None:
        """No version of the row can be removed then; there are as many as it was saved times."""
        engine = create_async_engine(driver_url(database_url), isolation_level="AUTOCOMMIT")
        async with held_open(database_url, "SELECT 1"), engine.connect() as conn:
            await _outbox.load_relay_state(conn)
            for number in range(3000):
                await _outbox.save_relay_state(conn, number, [], number)
            before = await pages_looked_at(conn)
            for number in range(100):
                await _outbox.save_relay_state(conn, number, [], number)

            assert (await pages_looked_at(conn) - before) / 100 < 10
        await engine.dispose()

    async def test_a_row_that_somebody_else_changed_is_found_by_its_name(
        self, database_url: str
    ) -> None:
        engine = create_async_engine(driver_url(database_url), isolation_level="AUTOCOMMIT")
        async with session_of(database_url) as session, engine.connect() as conn:
            await _outbox.load_relay_state(conn)
            await _outbox.save_relay_state(conn, 1, [], 1)
            await session.execute("UPDATE bus.relay_state SET cursor = 0")
            await _outbox.save_relay_state(conn, 2, [], 2)

            assert await session.fetchval("SELECT cursor FROM bus.relay_state") == 2
        await engine.dispose()


async def pages_looked_at(conn: AsyncConnection) -> int:
    await conn.execute(text("SELECT pg_stat_force_next_flush()"))
    query = "SELECT heap_blks_hit + heap_blks_read FROM pg_statio_user_tables WHERE relname = :name"
    return int((await conn.execute(text(query), {"name": "relay_state"})).scalar_one())


class TestBacklog:
    async def test_positions_between_partitions_are_no_events_that_wait(
        self, database_url: str, db: AsyncConnection
    ) -> None:
        async with session_of(database_url) as session:
            assert (await _outbox.backlog(db)).waiting == 0
            await record(session, "a", "b", "c")
            assert (await _outbox.backlog(db)).waiting == 3
            await session.execute("INSERT INTO bus.relay_state (name, cursor) VALUES ('events', 1)")
            await session.execute(f"SELECT setval('bus.outbox_position', {2 * WIDTH}, false)")
            await record(session, "d", "e")

            assert (await _outbox.backlog(db)).waiting == 4
            await published(session)
            assert (await _outbox.backlog(db)).waiting == 0
