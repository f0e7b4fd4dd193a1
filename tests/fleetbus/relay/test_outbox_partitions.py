"""The outbox for years: begun and dropped by time, and nobody waits for it."""

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.running.registry import Registry
from bus.storage.own import outbox_partitions as _outbox_partitions
from bus.storage.own.outbox_partitions import AHEAD, WIDTH
from contracts.planning.tasks import CreateTask
from fleetbus.client import Bus
from fleetbus.server.config import Settings
from fleetbus.server.service import Service
from fleetbus.server.sweeper.sweeper import sweeps
from tests.fleetbus.relay.partitioned import (
    READING,
    WRITING,
    held_open,
    keep,
    live,
    names,
    numbered,
    pass_time,
    positions,
    published,
)
from tests.fleetbus.relay.running import (
    QUICK,
    Session,
    client_of,
    entities,
    eventually,
    no_holes,
    record,
    running_relay,
    session_of,
    stream_reaches,
)


class TestTime:
    async def test_nothing_is_done_while_nothing_is_old(
        self, database_url: str, db: AsyncConnection
    ) -> None:
        async with session_of(database_url) as session:
            await record(session, "a")
            await published(session)

            assert await keep(db) == 0
            assert await names(session) == numbered(0, AHEAD)

    async def test_after_a_seventh_of_the_retention_the_next_one_is_begun(
        self, database_url: str, db: AsyncConnection
    ) -> None:
        async with session_of(database_url) as session:
            await record(session, "a")
            await pass_time(session, days=1.01)
            await keep(db)
            await record(session, "b")
            await keep(db)

            assert await positions(session) == [1, WIDTH]
            assert await names(session) == numbered(0, 1 + AHEAD)

    async def test_what_is_older_than_the_retention_goes_and_nothing_else(
        self, database_url: str, db: AsyncConnection
    ) -> None:
        async with session_of(database_url) as session:
            await live(db, session, days=20)
            await keep(db)

            assert len(await positions(session)) == 6
            assert await names(session) == numbered(14, 19 + AHEAD)

    async def test_a_quiet_month_leaves_one_partition_behind(
        self, database_url: str, db: AsyncConnection
    ) -> None:
        """A partition without rows is not ended: it would be one more each day."""
        async with session_of(database_url) as session:
            await live(db, session, days=1)
            for _ in range(5):
                await keep(db)
            assert await names(session) == numbered(0, 1 + AHEAD)

            await pass_time(session, days=30)
            await keep(db)
            assert await names(session) == numbered(1, 1 + AHEAD)

    async def test_a_clock_that_ran_ahead_keeps_nothing_for_ever(
        self, database_url: str, db: AsyncConnection
    ) -> None:
        async with session_of(database_url) as session:
            await record(session, "a")
            await pass_time(session, days=1.01)
            await record(session, "recorded in the future")
            await session.execute(
                "UPDATE bus.outbox SET recorded_at = now() + interval '50 years' "
                "WHERE entity_id LIKE 'recorded%'"
            )
            await keep(db)
            await record(session, "b")
            await published(session)
            assert await names(session) >= numbered(0, 1)

            await pass_time(session, days=8)
            await keep(db)

            assert "outbox_p0" not in await names(session)


class TestUnpublished:
    @pytest.mark.parametrize(
        "state",
        [
            pytest.param("DELETE FROM bus.relay_state", id="no relay ever ran"),
            pytest.param("UPDATE bus.relay_state SET cursor = 1", id="beyond the cursor"),
            pytest.param("UPDATE bus.relay_state SET holes = '[[2, 2]]'", id="in a hole"),
        ],
    )
    async def test_what_the_stream_is_owed_is_never_dropped(
        self, database_url: str, db: AsyncConnection, state: str
    ) -> None:
        async with session_of(database_url) as session:
            await record(session, "a", "b")
            await published(session)
            await pass_time(session, days=2)
            await keep(db)
            await session.execute(state)
            await pass_time(session, days=300)
            await keep(db)
            assert await positions(session) == [1, 2]

            await published(session)
            await keep(db)
            assert await positions(session) == []

    async def test_what_commits_late_is_not_dropped_before(
        self, database_url: str, db: AsyncConnection
    ) -> None:
        async with session_of(database_url) as session:
            await record(session, "a")
            await published(session)
            async with held_open(database_url, WRITING) as slow:
                await pass_time(session, days=300)
                await keep(db)
                await keep(db)
                await slow.execute("COMMIT")
            await keep(db)

            assert await session.fetchval("SELECT entity_id FROM bus.outbox WHERE position = 2")

    async def test_what_commits_while_the_lock_is_waited_for_is_not_dropped(
        self, database_url: str, db: AsyncConnection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_outbox_partitions, "_PREPARE", text("SELECT 'no lock_timeout'"))
        async with session_of(database_url) as session:
            await live(db, session, days=2)
            await pass_time(session, days=7)
            assert "outbox_p0" in await names(session)
            await session.execute("SELECT setval('bus.outbox_position', 1)")
            async with held_open(database_url, WRITING) as slow:
                await session.execute("UPDATE bus.relay_state SET holes = '[[2, 2]]'")
                await session.execute(f"SELECT setval('bus.outbox_position', {WIDTH + 9})")
                dropping = asyncio.create_task(keep(db))
                await eventually(lambda: waits_for_a_lock(session))
                await slow.execute("COMMIT")
                await dropping

            assert 2 in await positions(session)


async def waits_for_a_lock(session: Session) -> bool:
    waiting = (
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'bus.outbox'::regclass"
    )
    return bool(await session.fetchval(waiting))


class TestDefaultPartition:
    async def test_an_insert_without_a_partition_succeeds_and_is_relayed(
        self, database_url: str, nats_url: str, db: AsyncConnection
    ) -> None:
        """The sequence was set by hand, or the sweeper was away for longer than there were any."""
        nowhere = (AHEAD + 5) * WIDTH
        async with (
            session_of(database_url) as session,
            client_of(nats_url) as client,
            running_relay(database_url, client, QUICK),
        ):
            await record(session, "a")
            await session.execute(f"SELECT setval('bus.outbox_position', {nowhere})")
            await record(session, "b")
            await keep(db)
            await record(session, "c")
            await keep(db)
            await record(session, "d")

            assert await entities(client, 4) == ["a", "b", "c", "d"]
            await no_holes(session)
            assert await positions(session) == [1, nowhere + 1, nowhere + 2, nowhere + WIDTH]
            assert await names(session) >= numbered(AHEAD + 6, 2 * AHEAD + 5)

    async def test_it_is_emptied_when_its_time_has_come(
        self, database_url: str, db: AsyncConnection
    ) -> None:
        async with session_of(database_url) as session:
            await session.execute(f"SELECT setval('bus.outbox_position', {(AHEAD + 5) * WIDTH})")
            await record(session, "a")
            for _ in range(2):
                await keep(db)
            await record(session, "b")
            await pass_time(session, days=8)
            await keep(db)
            await record(session, "c")
            assert len(await positions(session)) == 3

            await published(session)
            await keep(db)
            assert await positions(session) == [(AHEAD + 7) * WIDTH]


class TestHeldOpen:
    @pytest.mark.parametrize("statement", [READING, WRITING], ids=["reading", "writing"])
    async def test_commands_and_relay_go_on_while_partitions_should_be_dropped(
        self,
        database_url: str,
        db: AsyncConnection,
        bus: Bus,
        service: Service,
        statement: str,
    ) -> None:
        """Nobody who waits for a lock on the outbox is waited for by others, but for a moment."""
        async with session_of(database_url) as session:
            await bus.call(CreateTask(name="old"))
            await stream_reaches(service.client, 1)
            await pass_time(session, days=2)
            await keep(db)
            await bus.call(CreateTask(name="new"))
            await stream_reaches(service.client, 2)
            await pass_time(session, days=10)
            async with held_open(database_url, statement):
                sweeping = asyncio.create_task(keep_on_keeping(db))
                for number in range(50):
                    await bus.call(CreateTask(name=f"meanwhile {number}"))
                await stream_reaches(service.client, 52)
                assert not sweeping.done()
                sweeping.cancel()
                await asyncio.wait({sweeping})
                assert "outbox_p0" in await names(session)

    @pytest.mark.parametrize("statement", [READING, WRITING], ids=["reading", "writing"])
    async def test_the_next_partition_is_begun_all_the_same(
        self, database_url: str, db: AsyncConnection, statement: str
    ) -> None:
        async with session_of(database_url) as session:
            await record(session, "a")
            await pass_time(session, days=2)
            async with held_open(database_url, statement):
                await keep(db)
                await record(session, "b")

            assert (await positions(session))[-1] == WIDTH


async def keep_on_keeping(db: AsyncConnection) -> None:
    while True:
        await keep(db)


class TestJob:
    async def test_the_sweeper_does_it(
        self, settings: Settings, registry: Registry, database_url: str
    ) -> None:
        often = settings.model_copy(update={"sweeper": True, "sweep_interval": 0.001})
        async with session_of(database_url) as session:
            await live_long_ago(session)
            service = Service(often, registry)
            await service.start()
            try:
                await eventually(lambda: is_gone(session, "outbox_p0"))
            finally:
                await service.stop()

            assert "keep_outbox" in {task.name for task in sweeps(registry, settings)}
            ran = "SELECT last_error IS NULL AND handled > 0 FROM bus.sweeps WHERE job = $1"
            assert await session.fetchval(ran, "keep_outbox")


async def live_long_ago(session: Session) -> None:
    await record(session, "a")
    await session.execute(f"SELECT setval('bus.outbox_position', {WIDTH})")
    await published(session)
    await pass_time(session, days=30)


async def is_gone(session: Session, name: str) -> bool:
    return name not in await names(session)
