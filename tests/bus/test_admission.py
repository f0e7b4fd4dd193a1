"""Beyond what a process takes on, requests are shed at once and succeed when there is room."""

import asyncio
import time
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from fleetbus.config import Settings
from fleetbus.service import Service
from tests.bus.asking import NOTE, READ, RUN, Asker, add_tasks, eventually, locked

LIMIT = 8
AT_ONCE = 0.05


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={"max_in_flight": LIMIT, "max_in_flight_per_operation": LIMIT // 2}
    )


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
            got = await ask(READ, {"sql": ["SELECT 1"]})
            assert time.monotonic() - started < AT_ONCE
            assert (got.status, got.type) == (429, "overloaded")
            assert got.body["retryable"] is True
            assert got.body["retry_after_ms"] > 0
        await release(db)
        assert await asyncio.gather(*waiting) == [200] * LIMIT

    async def test_it_takes_requests_again_afterwards(
        self, ask: Asker, db: AsyncConnection, service: Service, tasks: list[UUID]
    ) -> None:
        waiting = await saturate(ask, service, tasks)
        await release(db)
        await asyncio.gather(*waiting)

        assert (await ask(READ, {"sql": ["SELECT 1"]})).status == 200
        assert service.dispatcher.stats.in_flight == 0

    async def test_what_was_shed_is_counted(
        self, ask: Asker, db: AsyncConnection, service: Service, tasks: list[UUID]
    ) -> None:
        waiting = await saturate(ask, service, tasks)

        for _ in range(3):
            await ask(READ, {"sql": ["SELECT 1"]})

        stats = service.dispatcher.stats.operations[READ]
        assert (stats.shed, stats.requests, stats.errors) == (3, 3, 3)
        assert stats.data()["errors_by_type"] == {"overloaded": 3}
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


async def release(db: AsyncConnection) -> None:
    """Let go of the locked rows before the fixture does."""
    await db.exec_driver_sql("ROLLBACK")
    await db.exec_driver_sql("BEGIN")
