"""While every connection is taken and many wait, agents go on living, and the dead are known."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage.slots import RESERVE
from fleetbus.server.config import Settings
from fleetbus.server.service import Service
from tests.bus.asking import (
    NOTE,
    RUN,
    Asker,
    Got,
    add_tasks,
    eventually,
    locked,
    waiting_for_locks,
)
from tests.servers import connection_to

Storm = list[asyncio.Task[Got]]

HEARTBEAT = "db.agents.heartbeat"

VITAL = 30
"""Vital requests that a process takes on, where that is the question."""

DEPTH = 10
"""Commands of the storm, for each connection."""


async def register(ask: Asker, count: int) -> list[str]:
    """Agents without a task, by their ids."""
    return [(await ask("db.agents.register", {})).body["id"] for _ in range(count)]


async def beat(ask: Asker, *agents: str) -> list[Got]:
    beats = (ask(HEARTBEAT, {"id": agent, "incarnation": 1}) for agent in agents)
    return list(await asyncio.gather(*beats))


async def lock_waits(db: AsyncConnection, count: int) -> bool:
    return await waiting_for_locks(db) == count


@asynccontextmanager
async def held(db: AsyncConnection, agent: str) -> AsyncIterator[None]:
    """Hold the row lock of an agent inside the block."""
    await db.execute(text("BEGIN"))
    try:
        query = text("SELECT 1 FROM agents.agents WHERE id = :id FOR UPDATE")
        await db.execute(query, {"id": agent})
        yield
    finally:
        await db.execute(text("ROLLBACK"))


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[AsyncConnection]:
    """A second connection to the test's database; the first one holds the locks of the storm."""
    async with connection_to(database_url) as connection:
        yield connection


@pytest.fixture
async def stuck(db: AsyncConnection) -> UUID:
    [task] = await add_tasks(db)
    return task


@pytest.fixture
async def agents(ask: Asker) -> list[str]:
    return await register(ask, 20)


@pytest.fixture
async def storm(
    ask: Asker, agents: list[str], db: AsyncConnection, service: Service, stuck: UUID
) -> AsyncIterator[Storm]:
    """Commands with a transaction each, which hold every connection for as long as the test."""
    assert agents, "they are there before the storm"
    connections = service.settings.pool_write
    waiting = {"sql": [f"SELECT 1 FROM planning.tasks WHERE id = '{stuck}' FOR UPDATE"]}
    async with locked(db, stuck):
        rush = [
            asyncio.create_task(ask(RUN, waiting, within=30)) for _ in range(DEPTH * connections)
        ]
        await eventually(partial(lock_waits, db, connections))
        await eventually(lambda: service.database.use()["write"].waiting >= len(rush) - connections)
        yield rush
        assert not any(task.done() for task in rush), "the storm was over before the test"
    assert {got.status for got in await asyncio.gather(*rush)} == {200}


async def test_heartbeats_are_answered(ask: Asker, agents: list[str], storm: Storm) -> None:
    for _ in range(3):
        assert {got.status for got in await beat(ask, *agents)} == {200}


async def test_also_where_one_of_them_waits_for_a_lock(
    ask: Asker, agents: list[str], storm: Storm, other: AsyncConnection
) -> None:
    slow, *free = agents
    async with held(other, slow):
        late = asyncio.create_task(beat(ask, slow))
        answered = await beat(ask, *free)

        assert {got.status for got in answered} == {200}
        assert not late.done()
    assert [got.status for got in await late] == [200]


async def test_a_lost_connection_is_told_and_decided(
    ask: Asker, agents: list[str], storm: Storm
) -> None:
    back, gone, *_ = agents
    suspected = {}
    for agent in (back, gone):
        got = await ask("db.agents.suspect", {"connection_name": agent})
        [told] = got.body["agents"]
        suspected[agent] = told["suspected_at"]

    there = await ask("db.agents.reinstate", {"connection_name": back})
    crashed = await ask(
        "db.agents.confirm_suspicion", {"id": gone, "suspected_at": suspected[gone]}
    )

    assert [agent["suspected_at"] for agent in there.body["agents"]] == [None]
    assert crashed.body["status"] == "crashed"


async def test_leases_of_tasks_are_renewed(
    ask: Asker, other: AsyncConnection, storm: Storm
) -> None:
    [task] = await add_tasks(other)

    got = await ask("db.tasks.renew", {"id": str(task), "attempt": 1})

    assert got.status == 200


async def test_others_wait_their_turn(
    ask: Asker, other: AsyncConnection, service: Service, storm: Storm
) -> None:
    [task] = await add_tasks(other)

    late = asyncio.create_task(ask(NOTE, {"id": str(task)}))
    await eventually(
        lambda: service.database.use()["write"].waiting > len(storm) - service.settings.pool_write
    )

    use = service.database.use()["write"]
    assert (use.size, use.in_use) == (
        service.settings.pool_write + RESERVE,
        service.settings.pool_write,
    )
    late.cancel()


class TestLeases:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"sweeper": True, "sweep_interval": 0.05})

    async def test_the_dead_are_found(
        self, ask: Asker, agents: list[str], other: AsyncConnection, storm: Storm
    ) -> None:
        over = text("UPDATE agents.agents SET lease_expires_at = '2020-01-01Z' WHERE id = :id")
        await other.execute(over, {"id": agents[0]})

        async def crashed() -> bool:
            return bool((await ask("db.agents.get", {"id": agents[0]})).body["status"] == "crashed")

        await eventually(crashed)


class TestAdmission:
    """Requests beyond what the process takes on are shed, and those that are vital are not."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        taken = DEPTH * settings.pool_write
        return settings.model_copy(
            update={
                "max_in_flight": taken,
                "max_in_flight_per_operation": taken,
                "max_vital_in_flight": VITAL,
            }
        )

    async def test_heartbeats_are_taken_on(
        self, ask: Asker, agents: list[str], service: Service, storm: Storm
    ) -> None:
        shed = await ask(NOTE, {"id": agents[0]})

        assert {got.status for got in await beat(ask, *agents)} == {200}
        assert shed.status == 429
        assert service.dispatcher.stats.in_flight == service.settings.max_in_flight

    async def test_up_to_a_limit_of_their_own(
        self, ask: Asker, agents: list[str], service: Service, other: AsyncConnection, storm: Storm
    ) -> None:
        stats = service.dispatcher.stats.operations[HEARTBEAT]
        async with held(other, agents[0]):
            late = asyncio.create_task(beat(ask, *[agents[0]] * VITAL))
            await eventually(lambda: stats.in_flight == VITAL)

            [shed] = await beat(ask, agents[1])
            other_kind = await ask("db.tasks.renew", {"id": agents[1], "attempt": 1})

            assert (shed.status, shed.type) == (429, "overloaded")
            assert other_kind.status == 429
        assert {got.status for got in await late} == {200}
        assert [got.status for got in await beat(ask, agents[1])] == [200]

    async def test_they_use_up_nothing_of_the_others(
        self, ask: Asker, agents: list[str], service: Service, other: AsyncConnection
    ) -> None:
        stats = service.dispatcher.stats
        limit = service.settings.max_in_flight
        async with held(other, agents[0]):
            beats = asyncio.create_task(beat(ask, *[agents[0]] * VITAL))
            await eventually(lambda: stats.in_flight == VITAL)

            rush = [ask(RUN, {"sql": ["SELECT 1"]}) for _ in range(limit)]
            assert {got.status for got in await asyncio.gather(*rush)} == {200}
        assert {got.status for got in await beats} == {200}


NEEDLESS = ["bus.requests", "bus.outbox", "bus.sweeps", "planning.tasks", "bus.relay_state"]
"""Tables that a heartbeat needs not: it has no key, and tells nothing."""


@asynccontextmanager
async def table_locked(db: AsyncConnection, *tables: str) -> AsyncIterator[None]:
    """What VACUUM FULL and ALTER TABLE hold, inside the block."""
    await db.execute(text("BEGIN"))
    try:
        await db.execute(text(f"LOCK TABLE {', '.join(tables)} IN ACCESS EXCLUSIVE MODE"))
        yield
    finally:
        await db.execute(text("ROLLBACK"))


class TestLockedTables:
    @pytest.mark.parametrize("table", NEEDLESS)
    async def test_heartbeats_wait_for_no_table_that_they_need_not(
        self, ask: Asker, db: AsyncConnection, table: str
    ) -> None:
        agents = await register(ask, 5)
        async with table_locked(db, table):
            for _ in range(3):
                assert {got.status for got in await beat(ask, *agents)} == {200}

    async def test_nor_where_everybody_else_waits_for_them(
        self, ask: Asker, db: AsyncConnection, service: Service
    ) -> None:
        agents = await register(ask, 5)
        async with table_locked(db, *NEEDLESS):
            create = partial(ask, "db.tasks.create", {"name": "late"}, within=30)
            stuck = [asyncio.create_task(create(key=f"late-{n}")) for n in range(20)]
            stuck += [
                asyncio.create_task(ask(RUN, {"sql": TAKE_ONE}, within=30)) for _ in range(20)
            ]
            taken = service.settings.pool_write
            await eventually(lambda: service.database.use()["write"].in_use >= taken)
            for _ in range(3):
                assert {got.status for got in await beat(ask, *agents)} == {200}
            assert not any(task.done() for task in stuck)
        assert {(await task).status for task in stuck} == {200}

    async def test_nor_for_those_of_their_like_that_have_a_key(
        self, ask: Asker, db: AsyncConnection
    ) -> None:
        keyed, *keyless = await register(ask, 6)
        async with table_locked(db, "bus.requests"):
            body = {"id": keyed, "incarnation": 1}
            late = asyncio.create_task(ask(HEARTBEAT, body, key="beat", within=30))
            for _ in range(3):
                assert {got.status for got in await beat(ask, *keyless)} == {200}
            assert not late.done()
        assert (await late).status == 200

    async def test_renewals_and_creation_need_no_replies_either(
        self, ask: Asker, db: AsyncConnection
    ) -> None:
        [task] = await add_tasks(db)
        async with table_locked(db, "bus.requests"):
            renewed = await ask("db.tasks.renew", {"id": str(task), "attempt": 1})
            changed = await ask("db.tasks.update", {"id": str(task), "name": "changed"})
        assert (renewed.status, changed.status) == (200, 200)


TAKE_ONE = ["SELECT 1 FROM planning.tasks LIMIT 1"]
