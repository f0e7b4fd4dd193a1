"""Beyond what a process takes on, requests are shed at once and succeed when there is room."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from fleetbus.server.config import Settings
from fleetbus.server.service import Service
from fleetbus.server.wire.broker import QUEUE_GROUP, READ_SIZE, UNLIMITED
from tests.bus.asking import (
    CREATE,
    NOTE,
    READ,
    RUN,
    Asker,
    Got,
    add_tasks,
    asking,
    eventually,
    locked,
)

LIMIT = 8
AT_ONCE = 0.05


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={
            "max_in_flight": LIMIT,
            "max_queries_in_flight": LIMIT,
            "max_vital_in_flight": LIMIT,
            "max_in_flight_per_operation": LIMIT // 2,
        }
    )


@pytest.fixture
async def other(ask: Asker, nats_url: str) -> AsyncIterator[Asker]:
    """Another caller."""
    assert ask.client.is_connected
    async with asking(nats_url) as asker:
        yield asker


@pytest.fixture
async def tasks(db: AsyncConnection) -> AsyncIterator[list[UUID]]:
    """Tasks whose rows are locked for as long as the test lasts, or until it lets go."""
    tasks = await add_tasks(db, LIMIT)
    async with locked(db, *tasks):
        yield tasks


async def saturate(ask: Asker, service: Service, tasks: list[UUID]) -> list[asyncio.Task[int]]:
    """As many requests in work as the process takes on: half of them on each operation."""

    async def status(subject: str, body: object) -> int:
        return (await ask(subject, body)).status

    half = LIMIT // 2
    wait = "SELECT 1 FROM planning.tasks WHERE id = '{}' FOR UPDATE"
    waiting = [asyncio.create_task(status(NOTE, {"id": str(t)})) for t in tasks[:half]]
    waiting += [asyncio.create_task(status(RUN, {"sql": [wait.format(t)]})) for t in tasks[half:]]
    await eventually(lambda: service.dispatcher.stats.in_flight == LIMIT)
    return waiting


class TestSaturated:
    @pytest.mark.alone
    async def test_further_requests_are_refused_at_once(
        self, ask: Asker, db: AsyncConnection, service: Service, tasks: list[UUID]
    ) -> None:
        waiting = await saturate(ask, service, tasks)

        for _ in range(20):
            started = time.monotonic()
            got = await ask(CREATE, {"name": "shed"})
            assert time.monotonic() - started < AT_ONCE
            assert (got.status, got.type) == (429, "overloaded")
            assert got.body["retryable"] is True
            assert got.body["retry_after_ms"] > 0
            assert got.body["budget"] == "commands"
        await release(db)
        assert await asyncio.gather(*waiting) == [200] * LIMIT

    async def test_it_takes_requests_again_afterwards(
        self, ask: Asker, db: AsyncConnection, service: Service, tasks: list[UUID]
    ) -> None:
        waiting = await saturate(ask, service, tasks)
        await release(db)
        await asyncio.gather(*waiting)

        assert (await ask(RUN, {"sql": ["SELECT 1"]})).status == 200
        await eventually(lambda: is_empty(service))

    async def test_what_was_shed_is_counted(
        self, ask: Asker, db: AsyncConnection, service: Service, tasks: list[UUID]
    ) -> None:
        waiting = await saturate(ask, service, tasks)

        for _ in range(3):
            await ask(CREATE, {"name": "shed"})

        stats = service.dispatcher.stats.operations[CREATE]
        assert (stats.shed, stats.requests, stats.errors) == (3, 3, 3)
        assert stats.data()["errors_by_type"] == {"overloaded": 3}
        assert stats.data()["shed_by_budget"] == {"commands": 3}
        await release(db)
        await asyncio.gather(*waiting)

    async def test_a_shed_command_has_no_effect(
        self, ask: Asker, db: AsyncConnection, service: Service, tasks: list[UUID]
    ) -> None:
        waiting = await saturate(ask, service, tasks)

        got = await ask(RUN, {"sql": ["DELETE FROM planning.tasks"]}, key="k")

        await release(db)
        assert (got.status, await asyncio.gather(*waiting)) == (429, [200] * LIMIT)


class TestPerOperation:
    async def test_one_operation_does_not_take_all(
        self, ask: Asker, db: AsyncConnection, service: Service, tasks: list[UUID]
    ) -> None:
        stats = service.dispatcher.stats
        waiting = [
            asyncio.create_task(ask(NOTE, {"id": str(task)})) for task in tasks[: LIMIT // 2]
        ]
        await eventually(lambda: stats.in_flight == LIMIT // 2)

        same = await ask(NOTE, {"id": str(tasks[-1])})
        other = await ask(READ, {"sql": ["SELECT 1"]})

        assert (same.status, other.status) == (429, 200)
        assert (stats.operations[NOTE].shed, stats.operations[READ].shed) == (1, 0)
        await release(db)
        assert {got.status for got in await asyncio.gather(*waiting)} == {200}


class TestKinds:
    """Each kind of requests has a budget of its own."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"max_in_flight_per_operation": LIMIT})

    async def test_commands_shed_no_query(
        self, ask: Asker, db: AsyncConnection, service: Service, tasks: list[UUID]
    ) -> None:
        waiting = await saturate(ask, service, tasks)

        assert (await ask(READ, {"sql": ["SELECT 1"]})).status == 200
        await release(db)
        await asyncio.gather(*waiting)

    async def test_queries_shed_no_command(
        self, ask: Asker, db: AsyncConnection, service: Service
    ) -> None:
        async with queries_waiting(ask, db, service):
            shed = await ask("db.tasks.list")
            command = await ask("db.tasks.create", {"name": "a"})

            assert (shed.status, shed.body["budget"]) == (429, "queries")
            assert command.status == 200

    async def test_nor_a_query_of_another_caller(
        self, ask: Asker, other: Asker, db: AsyncConnection, service: Service
    ) -> None:
        async with queries_waiting(ask, db, service):
            assert (await other("db.meta.operations")).status == 200

    async def test_heartbeats_shed_neither(
        self, ask: Asker, db: AsyncConnection, service: Service
    ) -> None:
        agents = [(await ask("db.agents.register", {"name": n})).body["id"] for n in "ab"]
        async with held_agent(db, agents[0]):
            beats = [asyncio.create_task(beat(ask, agents[0])) for _ in range(LIMIT)]
            await eventually(lambda: service.dispatcher.stats.in_flight == LIMIT)

            shed = await beat(ask, agents[1])

            assert (shed.status, shed.body["budget"]) == (429, "vital")
            assert (await ask("db.tasks.create", {"name": "a"})).status == 200
            assert (await ask("db.tasks.list")).status == 200
        assert {got.status for got in await asyncio.gather(*beats)} == {200}


class TestCallers:
    """What one caller has in flight leaves room for others."""

    async def test_another_one_may_send_a_command(
        self, ask: Asker, other: Asker, db: AsyncConnection, service: Service, tasks: list[UUID]
    ) -> None:
        waiting = await saturate(ask, service, tasks)

        mine = asyncio.create_task(other(CREATE, {"name": "mine"}))
        await eventually(lambda: service.dispatcher.stats.in_flight == LIMIT + 1)
        await release(db)
        assert (await mine).status == 200
        await asyncio.gather(*waiting)

    async def test_even_of_the_operation_that_is_full(
        self, ask: Asker, other: Asker, db: AsyncConnection, service: Service, tasks: list[UUID]
    ) -> None:
        free = (await other("db.tasks.create", {"name": "a"})).body["id"]
        waiting = await saturate(ask, service, tasks)

        mine = asyncio.create_task(other(NOTE, {"id": free}))
        await eventually(lambda: service.dispatcher.stats.in_flight == LIMIT + 1)
        await release(db)
        assert (await mine).status == 200
        await asyncio.gather(*waiting)

    async def test_the_heartbeats_of_another_one_are_taken_on(
        self, ask: Asker, other: Asker, db: AsyncConnection, service: Service
    ) -> None:
        agents = [(await ask("db.agents.register", {"name": n})).body["id"] for n in "ab"]
        async with held_agent(db, agents[0]):
            flood = [asyncio.create_task(beat(ask, agents[0])) for _ in range(5 * LIMIT)]
            await eventually(lambda: service.dispatcher.stats.in_flight == LIMIT)

            assert (await beat(other, agents[1])).status == 200
        assert {got.status for got in await asyncio.gather(*flood)} == {200, 429}

    async def test_nothing_is_kept_of_callers_without_anything_in_flight(
        self, ask: Asker, other: Asker, service: Service
    ) -> None:
        for asker in (ask, other):
            await asker("db.tasks.list")
            await asker("db.tasks.create", {"name": "a"})

        await eventually(lambda: is_empty(service))


class TestBytes:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"max_bytes_in_flight": 4 * 1024 * 1024})

    async def test_large_requests_leave_room_for_those_of_others(
        self, ask: Asker, other: Asker, db: AsyncConnection, service: Service, tasks: list[UUID]
    ) -> None:
        large = "x" * 400_000
        waiting = [
            asyncio.create_task(ask(NOTE, {"id": str(task), "note": large})) for task in tasks[:2]
        ]
        await eventually(lambda: service.dispatcher.stats.in_flight == 2)

        shed = await ask(NOTE, {"id": str(tasks[2]), "note": large})
        small = await other(RUN, {"sql": ["SELECT 1"]})

        assert (shed.status, shed.body["budget"], small.status) == (429, "bytes", 200)
        await release(db)
        assert {got.status for got in await asyncio.gather(*waiting)} == {200}
        await eventually(lambda: is_empty(service))

    async def test_answers_count_until_they_are_with_the_socket(
        self, ask: Asker, service: Service
    ) -> None:
        asked = [ask("db.meta.asyncapi") for _ in range(50)]

        answers = await asyncio.gather(*asked)

        assert {got.status for got in answers} <= {200, 429}
        await eventually(lambda: is_empty(service))

    async def test_whatever_is_sent_is_answered_and_the_connection_lasts(
        self, ask: Asker, other: Asker, service: Service
    ) -> None:
        body = {"name": "x", "description": "y" * 900_000}
        agent = (await other("db.agents.register", {"name": "a"})).body["id"]

        flood = [asyncio.create_task(ask("db.tasks.create", body)) for _ in range(60)]
        beats = [(await beat(other, agent)).status for _ in range(5)]

        assert {got.status for got in await asyncio.gather(*flood)} <= {400, 429}
        assert beats == [200] * 5
        assert service.client.stats["reconnects"] == 0

    async def test_nats_py_reads_much_at_once_and_drops_nothing(self, service: Service) -> None:
        transport: Any = service.client._transport
        limits = {
            (subscription._pending_msgs_limit, subscription._pending_bytes_limit)
            for subscription in service.client._subs.values()
            if subscription.queue == QUEUE_GROUP
        }

        assert transport._io_reader._limit == READ_SIZE
        assert limits == {(UNLIMITED, UNLIMITED)}


def is_empty(service: Service) -> bool:
    """Whether nothing is in flight, in any budget, of anybody."""
    admission = service.dispatcher.admission
    budgets = (admission.commands, admission.queries, admission.vital)
    return all((b.requests, b.bytes, b.callers) == (0, 0, 0) for b in budgets)


async def beat(ask: Asker, agent: str) -> Got:
    return await ask("db.agents.heartbeat", {"id": agent, "incarnation": 1}, within=30)


@asynccontextmanager
async def held_agent(db: AsyncConnection, agent: str) -> AsyncIterator[None]:
    """Hold the row lock of an agent inside the block."""
    await db.exec_driver_sql("BEGIN")
    try:
        await db.execute(
            text("SELECT 1 FROM agents.agents WHERE id = :id FOR UPDATE"), {"id": agent}
        )
        yield
    finally:
        await db.exec_driver_sql("ROLLBACK")


@asynccontextmanager
async def queries_waiting(ask: Asker, db: AsyncConnection, service: Service) -> AsyncIterator[None]:
    """As many queries as the process takes on, which wait until the block ends."""
    lock = 4_711
    await db.exec_driver_sql(f"SELECT pg_advisory_lock({lock})")
    waits = {"sql": [f"SELECT pg_advisory_xact_lock_shared({lock})"]}
    waiting = [asyncio.create_task(ask(READ, waits)) for _ in range(LIMIT)]
    try:
        await eventually(lambda: service.dispatcher.stats.in_flight == LIMIT)
        yield
    finally:
        await db.exec_driver_sql(f"SELECT pg_advisory_unlock({lock})")
    assert {got.status for got in await asyncio.gather(*waiting)} == {200}


async def release(db: AsyncConnection) -> None:
    """Let go of the locked rows before the fixture does."""
    await db.exec_driver_sql("ROLLBACK")
    await db.exec_driver_sql("BEGIN")
