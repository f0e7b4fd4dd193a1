"""The sweeper as it runs in the handler processes."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.running.registry import Registry
from contracts.agents.agents import Heartbeat, RegisterAgent
from contracts.planning.tasks import ClaimTasks, CreateTask, GetTask, TaskLeaseExpired
from fleetbus.client import Bus, connect
from fleetbus.server.config import Settings
from fleetbus.server.service import Service
from fleetbus.server.sweeper.sweeper import Sweeper, sweeps

TASKS = 20


@pytest_asyncio.fixture
async def sweeping_bus(settings: Settings, registry: Registry, nats_url: str) -> AsyncIterator[Bus]:
    """A client of two services that both sweep, often."""
    often = settings.model_copy(update={"sweeper": True, "sweep_interval": 0.02})
    async with AsyncExitStack() as stack:
        for service in [Service(often, registry), Service(often, registry)]:
            await service.start()
            stack.push_async_callback(service.stop)
        yield await stack.enter_async_context(connect(nats_url, timeout=10))


async def test_two_of_them_take_each_lost_task_back_once(
    sweeping_bus: Bus, db: AsyncConnection
) -> None:
    bus = sweeping_bus
    for number in range(TASKS):
        await bus.call(CreateTask(name=str(number)))
    claimed = (await bus.call(ClaimTasks(agent_id="gone", limit=TASKS))).tasks
    assert len(claimed) == TASKS

    async with bus.events(TaskLeaseExpired) as events:
        await db.execute(text("UPDATE planning.tasks SET lease_expires_at = '2020-01-01Z'"))
        told = [await events.delivery() for _ in range(TASKS)]

    assert {d.entity_id for d in told} == {str(item.task.id) for item in claimed}
    assert {d.cause for d in told} == {"sweeper:expire_task_leases"}
    counted = "SELECT count(*) FROM bus.outbox WHERE type = 'task.lease_expired'"
    assert (await db.execute(text(counted))).scalar_one() == TASKS
    for item in claimed:
        task = await bus.call(GetTask(id=item.task.id))
        assert (task.status, task.retry_count, task.claimed_by) == ("pending", 1, None)


async def test_a_lock_of_somebody_else_is_no_reason_for_alarm(
    service: Service, db: AsyncConnection, caplog: pytest.LogCaptureFixture
) -> None:
    [keep] = [
        task for task in sweeps(service.registry, service.settings) if task.name == "keep_logs"
    ]
    sweeper = Sweeper(service.registry, service.database, [])

    await db.execute(text("BEGIN"))
    await db.execute(text("LOCK TABLE agents.log_chunks"))
    assert await sweeper._attempt(keep) == 0
    await db.execute(text("ROLLBACK"))

    [record] = [one for one in caplog.records if one.name == "fleetbus.sweeper"]
    assert record.levelname == "WARNING"
    assert record.exc_info is None
    noted = "SELECT last_error FROM bus.sweeps WHERE job = 'keep_logs'"
    assert "lock timeout" in (await db.execute(text(noted))).scalar_one()


async def test_what_is_vital_does_not_wait_for_the_table_of_what_was_done(
    sweeping_bus: Bus, db: AsyncConnection, caplog: pytest.LogCaptureFixture
) -> None:
    task = await sweeping_bus.call(CreateTask(name="lost"))
    await sweeping_bus.call(ClaimTasks(agent_id="gone"))

    async with sweeping_bus.events(TaskLeaseExpired) as events:
        await db.execute(text("UPDATE planning.tasks SET lease_expires_at = '2020-01-01Z'"))
        await db.execute(text("BEGIN"))
        await db.execute(text("LOCK TABLE bus.sweeps"))
        told = await events.delivery()
        await db.execute(text("ROLLBACK"))

    assert told.entity_id == str(task.id)
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_job_that_is_vital_keeps_no_heartbeat_waiting(
    sweeping_bus: Bus, db: AsyncConnection, caplog: pytest.LogCaptureFixture
) -> None:
    agent = await sweeping_bus.call(RegisterAgent())
    beat = Heartbeat(id=agent.id, incarnation=agent.incarnation)

    await db.execute(text("BEGIN"))
    await db.execute(text("LOCK TABLE planning.tasks"))
    while not any("met somebody else's lock" in message for message in caplog.messages):
        await sweeping_bus.call(beat, timeout=2)
    await db.execute(text("ROLLBACK"))

    met = [message for message in caplog.messages if "expire_task_leases met" in message]
    assert len(met) <= 2, "each of the two says it once"
