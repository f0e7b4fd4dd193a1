"""Nothing of a test is seen by the next one that has the same service, or it gets another one."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import pytest
import pytest_asyncio

from bus.running.registry import Registry
from contracts.agents.agents import RegisterAgent
from contracts.health.test_definitions import UpsertTestDefinition
from contracts.health.test_runs import RecordTestRun
from contracts.planning.tasks import ClaimTasks, CreateTask, ListTasks
from fleetbus.client import Bus, connect
from tests.kit.shared import FEW, Shared, Sharing
from tests.servers import Accounts, Databases

Leave = Callable[[Shared], Awaitable[object]]


@pytest_asyncio.fixture
async def sharing(template_database: Databases, nats_accounts: Accounts) -> AsyncIterator[Sharing]:
    sharing = Sharing(template_database, nats_accounts)
    try:
        yield sharing
    finally:
        await sharing.close()


def bus_of(shared: Shared) -> AbstractAsyncContextManager[Bus]:
    return connect(shared.settings.nats_url, timeout=10)


async def execute(shared: Shared, statement: str) -> None:
    await shared.db.execute(statement)


async def test_what_is_left_is_gone_and_was_published(sharing: Sharing, registry: Registry) -> None:
    async with sharing.turn(registry) as first, bus_of(first) as bus:
        await bus.call(CreateTask(name="left"), key="left")
        agent = await bus.call(RegisterAgent())
        await bus.call(ClaimTasks(agent_id=str(agent.id)))
        await bus.call(UpsertTestDefinition(id="a", description="b", endpoint="https://x.org/"))
        await bus.call(RecordTestRun(test_definition_id="a", status="success"))
        last = await first.db.fetchval("SELECT max(position) FROM bus.outbox")

    async with sharing.turn(registry) as second, bus_of(second) as bus:
        assert second is first
        assert second.service.relay is not None
        assert second.service.relay.metrics.last_position >= last > 0
        assert (await bus.call(ListTasks())).items == []
        assert await second._not_empty() == []
        again = await bus.request(CreateTask(name="left"), key="left")
        assert not again.replayed


async def stop(shared: Shared) -> None:
    await shared.service.stop()


async def alter(shared: Shared) -> None:
    await execute(shared, "ALTER TABLE planning.tasks ADD CONSTRAINT c CHECK (name <> 'x')")


async def create(shared: Shared) -> None:
    await execute(shared, "CREATE INDEX more ON planning.tasks (name)")


async def fill(shared: Shared) -> None:
    await execute(
        shared,
        "INSERT INTO planning.tasks (id, name) "
        f"SELECT gen_random_uuid(), 'x' FROM generate_series(1, {FEW})",
    )


async def lose(shared: Shared) -> None:
    await shared.service.client.close()


@pytest.mark.parametrize("leave", [stop, alter, create, fill, lose])
async def test_what_cannot_be_emptied_is_left(
    sharing: Sharing, registry: Registry, leave: Leave
) -> None:
    async with sharing.turn(registry) as first:
        await leave(first)
    async with sharing.turn(registry) as second, bus_of(second) as bus:
        assert second is not first
        assert (await bus.call(ListTasks())).items == []
    assert first.service.draining


async def test_what_a_failed_test_leaves_is_left(sharing: Sharing, registry: Registry) -> None:
    async with sharing.turn(registry, lambda: True) as first:
        pass
    async with sharing.turn(registry) as second:
        assert second is not first


async def test_each_registry_has_its_own(sharing: Sharing, registry: Registry) -> None:
    async with sharing.turn(registry) as first, sharing.turn(replace(registry)) as second:
        assert second is not first
        assert second.settings.database_url != first.settings.database_url
        assert second.settings.nats_url != first.settings.nats_url
