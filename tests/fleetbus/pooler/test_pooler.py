"""Commands and queries through a pooler in transaction mode; what needs a session goes directly."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.errors import Unavailable
from bus.running.registry import Registry
from bus.storage.database import Database
from bus.storage.own import sweeps as _sweeps
from contracts.planning.tasks import (
    ClaimTasks,
    CompleteTask,
    CreateTask,
    GetTask,
    ListTasks,
    TaskLeaseExpired,
)
from fleetbus.client import Bus, connect
from fleetbus.embedded.postgres import EmbeddedPostgres
from fleetbus.server.config import Settings
from fleetbus.server.service import Service
from fleetbus.server.starting import CannotStart
from tests.bus.asking import asking, eventually
from tests.bus.outages import serving
from tests.fleetbus.pooler.pgbouncer import PROGRAM, pgbouncer
from tests.servers import Databases, migrate

with_pgbouncer = pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed")

TASKS = 60
SESSIONS = 3
"""Fewer than the connections of one process, so that they have to be shared."""

HARMLESS = {"application_name", "client_encoding", "jit"}
"""What a pooler sets for each client, and what asyncpg sets and resets when it looks up a type."""

LEFT = """
SELECT ARRAY(SELECT name FROM pg_prepared_statements)
    || ARRAY(SELECT name FROM pg_settings WHERE source IN ('client', 'session'))
    || ARRAY(SELECT 'a lock' FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())
"""


@pytest_asyncio.fixture
async def pooler_url(database_url: str, data_dir: Path) -> AsyncIterator[str]:
    async with pgbouncer(database_url, data_dir, sessions=SESSIONS) as url:
        yield url


async def use(bus: Bus) -> None:
    """A bit of everything, much of it at once."""
    created = await asyncio.gather(
        *(bus.call(CreateTask(name=f"task {number}")) for number in range(TASKS))
    )
    claims = [bus.call(ClaimTasks(agent_id="agent", limit=2)) for _ in range(TASKS // 2)]
    claimed = [item for reply in await asyncio.gather(*claims) for item in reply.tasks]
    assert {item.task.id for item in claimed} == {task.id for task in created}
    done = [CompleteTask(id=item.task.id, attempt=item.task.attempt) for item in claimed]
    await asyncio.gather(*(bus.call(command) for command in done))
    read = await asyncio.gather(*(bus.call(GetTask(id=task.id)) for task in created))
    assert {task.status for task in read} == {"completed"}
    pages = await asyncio.gather(*(bus.call(ListTasks(limit=5)) for _ in range(10)))
    assert all(len(page.items) == 5 for page in pages)


@with_pgbouncer
class TestPgBouncer:
    @pytest_asyncio.fixture
    async def buses(
        self, settings: Settings, pooler_url: str, registry: Registry, nats_url: str
    ) -> AsyncIterator[list[Service]]:
        """Two services with everything that they do in the background."""
        all_of_it = settings.model_copy(
            update={"database_pooler_url": pooler_url, "sweeper": True, "sweep_interval": 0.05}
        )
        async with AsyncExitStack() as stack:
            services = [Service(all_of_it, registry), Service(all_of_it, registry)]
            for service in services:
                await service.start()
                stack.push_async_callback(service.stop)
            yield services

    async def test_commands_queries_relay_and_sweeper(
        self, buses: list[Service], nats_url: str, db: AsyncConnection
    ) -> None:
        async with connect(nats_url, timeout=60) as bus:
            await use(bus)
            taken = await bus.call(CreateTask(name="lost"))
            await bus.call(ClaimTasks(agent_id="gone"))

            async with bus.events(TaskLeaseExpired) as events:
                await db.execute(text("UPDATE planning.tasks SET lease_expires_at = '2020-01-01Z'"))
                async with asyncio.timeout(60):
                    told = await events.delivery()

            assert told.entity_id == str(taken.id)
            active = [service.relay and service.relay.metrics.active for service in buses]
            assert active.count(True) == 1
            await eventually(lambda: self._upkeep_ran(db), within=60)

    async def _upkeep_ran(self, db: AsyncConnection) -> bool:
        runs = await _sweeps.last_runs(db)
        assert {run.error for run in runs.values()} <= {None}
        return {"keep_outbox", "keep_logs"} <= runs.keys()

    async def test_its_sessions_are_left_as_they_were(
        self, buses: list[Service], pooler_url: str, nats_url: str
    ) -> None:
        async with connect(nats_url, timeout=60) as bus:
            await use(bus)

        # All at once, so that each has a session of its own.
        async with AsyncExitStack() as stack:
            for _ in range(SESSIONS):
                session = await asyncpg.connect(pooler_url, statement_cache_size=0)
                stack.push_async_callback(session.close)
                await session.execute("BEGIN")
                assert set(await session.fetchval(LEFT)) <= HARMLESS

    async def test_an_ended_session_is_replaced(
        self, buses: list[Service], nats_url: str, db: AsyncConnection
    ) -> None:
        async with connect(nats_url, timeout=60) as bus:
            await use(bus)
            await db.execute(
                text("""
                SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE backend_type = 'client backend'
                AND datname = current_database() AND pid <> pg_backend_pid()
                """)
            )

            await eventually(lambda: answered(bus), within=60)

    async def test_an_outage_behind_it_is_told_and_over_when_it_is(
        self,
        own_postgres: EmbeddedPostgres,
        data_dir: Path,
        registry: Registry,
        nats_url: str,
    ) -> None:
        await migrate(own_postgres.url)
        async with (
            pgbouncer(own_postgres.url, data_dir, sessions=SESSIONS) as url,
            serving(registry, own_postgres.url, nats_url, database_pooler_url=url),
            asking(nats_url) as ask,
        ):
            create = partial(ask, "db.tasks.create", {"name": "a task"}, within=60)
            task = (await create()).body["id"]

            await own_postgres.kill()
            first = await asyncio.gather(create(), ask("db.tasks.get", {"id": task}, within=60))
            later = await asyncio.gather(create(), ask("db.tasks.get", {"id": task}, within=60))
            assert {got.type for got in (*first, *later)} == {"unavailable"}

            await own_postgres.start()
            async with connect(nats_url, timeout=60) as bus:
                await eventually(lambda: answered(bus), within=60)

    async def test_a_read_that_writes_is_refused(self, database_url: str, pooler_url: str) -> None:
        await refuses_writes(Database(database_url, pooler_url=pooler_url))

    async def test_another_database_is_told_at_the_start(
        self, settings: Settings, pooler_url: str, template_database: Databases
    ) -> None:
        async with template_database.clone() as other_url:
            elsewhere = settings.model_copy(
                update={"database_url": other_url, "database_pooler_url": pooler_url}
            )
            with pytest.raises(CannotStart, match="leads to another database"):
                await Service(elsewhere).start()


class TestWithoutOne:
    """What can be seen where the address of the pooler is that of Postgres."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(
            update={"database_pooler_url": settings.database_url, "sweeper": True}
        )

    async def test_the_connections_of_the_pools_hold_no_state(
        self, bus: Bus, service: Service
    ) -> None:
        await use(bus)
        await service._end_background()  # nobody begins anything while it is looked at

        idle = service.database.idle()
        assert idle
        for connection in idle:
            assert set(await connection.scalar(text(LEFT)) or ()) <= HARMLESS

    async def test_no_statement_has_a_name(
        self, settings: Settings, registry: Registry, nats_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another client of the pooler could use the same one, in the same session."""
        names: list[str] = []
        prepare = asyncpg.Connection.prepare

        async def noting(connection: Any, *args: Any, **kwargs: Any) -> Any:
            statement = await prepare(connection, *args, **kwargs)
            names.append(statement.get_name())
            return statement

        # What has a session of its own may name its statements.
        in_pools = settings.model_copy(update={"relay": False, "sweeper": False})
        service = Service(in_pools, registry)
        await service.start()
        monkeypatch.setattr(asyncpg.Connection, "prepare", noting)
        try:
            async with connect(nats_url, timeout=10) as bus:
                await use(bus)
        finally:
            await service.stop()
        assert set(names) == {""}

    async def test_without_the_setting_they_do(
        self, registry: Registry, settings: Settings, nats_url: str
    ) -> None:
        """So the test above can fail."""
        service = Service(settings.model_copy(update={"database_pooler_url": None}), registry)
        await service.start()
        try:
            async with connect(nats_url, timeout=10) as bus:
                await use(bus)
            left: list[Any] = [await c.scalar(text(LEFT)) for c in service.database.idle()]
        finally:
            await service.stop()
        assert any("statement_timeout" in names for names in left)

    async def test_a_read_that_writes_is_refused(self, database_url: str) -> None:
        await refuses_writes(Database(database_url, pooler_url=database_url))


async def answered(bus: Bus) -> bool:
    """Whether the database is there."""
    try:
        return bool(await bus.call(CreateTask(name="after")))
    except Unavailable:
        return False


async def refuses_writes(database: Database) -> None:
    """Refuse it, and go on with the same connection."""
    try:
        with pytest.raises(DBAPIError, match="read-only transaction"):
            async with database.connection(read_only=True) as db:
                await db.execute(text("DELETE FROM planning.tasks"))
        async with database.connection(read_only=True) as db:
            assert await db.scalar(text("SHOW statement_timeout")) == "30s"
            assert await db.scalar(text("SHOW jit")) == "off"
    finally:
        await database.close()
