"""What consumers see: every event once, each entity in the order of its versions."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import pytest

from bus.contract.event import Event
from bus.kit.nats_io import flush
from contracts.planning.tasks import (
    AddTaskDependency,
    BlockTask,
    ClaimTasks,
    CompleteTask,
    CreateTask,
    Task,
    TaskCompleted,
    TaskCreated,
    UpdateTask,
)
from fleetbus.client import Bus
from fleetbus.client.events import Delivery, Events
from tests.kit.outbox import Outbox

pytestmark = pytest.mark.own_service  # a stream is read from its beginning

TASKS = 200
COMMANDS = 5 * TASKS


class TestThousandCommands:
    async def test_a_durable_consumer_and_a_plain_subscriber_see_each_event_once(
        self, bus: Bus, outbox: Outbox
    ) -> None:
        async with bus.events() as plain:
            await asyncio.gather(*(_five_commands(bus, number) for number in range(TASKS)))
            told = await outbox.all()
            seen = await _read(plain, len(told))
            durable = bus.events(durable="thousand")
            stored = await _read(durable, len(told))
            await durable.close()

        assert len(told) == COMMANDS
        for deliveries in (seen, stored):
            assert sorted(d.position for d in deliveries) == [row.position for row in told]
            assert len({d.id for d in deliveries}) == len(told)
            assert all(versions == [1, 2, 3, 4, 5] for versions in _versions(deliveries))
        assert [d.id for d in seen] == [d.id for d in stored]


class TestDurable:
    async def test_what_was_not_followed_by_another_request_comes_again(self, bus: Bus) -> None:
        first, second = [await bus.call(CreateTask(name=name)) for name in "ab"]

        reader = bus.events(TaskCreated, durable="one-by-one")
        assert (await anext(reader)).task == first
        await reader.close()
        again = bus.events(TaskCreated, durable="one-by-one")
        assert (await anext(again)).task == first
        assert (await anext(again)).task == second
        await again.close()

        rest = bus.events(TaskCreated, durable="one-by-one")
        assert (await anext(rest)).task == second
        await rest.close()

    async def test_of_one_entity_only(self, bus: Bus) -> None:
        first, second = [await bus.call(CreateTask(name=name)) for name in "ab"]
        for task in (first, second):
            await bus.call(UpdateTask(id=task.id, name="changed"))

        reader = bus.events(entity=second, durable="of-b")
        seen = [await reader.delivery() for _ in range(2)]
        await reader.close()

        assert [d.type for d in seen] == ["task.created", "task.updated"]
        assert {d.entity_id for d in seen} == {str(second.id)}


class TestPlain:
    async def test_events_are_typed_and_carry_their_cause(self, bus: Bus) -> None:
        task = await bus.call(CreateTask(name="a"))
        await _claim(bus, "worker")

        async with bus.events(TaskCompleted) as events:
            await bus.call(CompleteTask(id=task.id), key="because")
            delivery = await events.delivery()

        assert isinstance(delivery.event, TaskCompleted)
        assert (delivery.cause, delivery.entity_id) == ("because", str(task.id))


class TestHeaders:
    async def test_trace_and_cause_reach_the_events_of_reactions_too(self, bus: Bus) -> None:
        """W3C trace context: what a request carries is passed on to all that it causes."""
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        first, second = [await bus.call(CreateTask(name=name)) for name in "ab"]
        await bus.settled(
            await bus.request(AddTaskDependency(id=second.id, depends_on_task_id=first.id))
        )
        told = await bus.nats.subscribe("events.task.>")
        await flush(bus.nats)
        await _claim(bus, "worker")
        claimed = (await told.next_msg(timeout=10)).headers or {}

        await bus.call(CompleteTask(id=first.id), key="done", traceparent=trace)

        completed, ready = [(await told.next_msg(timeout=10)).headers or {} for _ in range(2)]
        assert claimed["ce-type"] == "task.claimed"
        assert (completed["ce-type"], completed["Fleet-Cause"]) == ("task.completed", "done")
        assert (ready["ce-type"], ready["ce-subject"]) == ("task.ready", str(second.id))
        assert ready["Fleet-Cause"] == "reaction:tell_ready_dependents"
        assert completed["traceparent"] == ready["traceparent"] == trace


async def _five_commands(bus: Bus, number: int) -> None:
    """Five changes of one task, each known to have happened before the next."""
    task = await bus.call(CreateTask(name=f"task {number}", category="plan"))
    for step in range(3):
        await bus.call(UpdateTask(id=task.id, name=f"task {number}, {step}"))
    await bus.call(BlockTask(id=task.id, reason="enough"))


async def _claim(bus: Bus, agent: str) -> Task:
    (claimed,) = (await bus.call(ClaimTasks(agent_id=agent))).tasks
    return claimed.task


async def _read(events: Events[Event], count: int) -> list[Delivery[Event]]:
    async with asyncio.timeout(30):
        return [await events.delivery() for _ in range(count)]


def _versions(deliveries: Iterable[Delivery[Any]]) -> Iterable[list[int]]:
    versions = defaultdict(list)
    for delivery in deliveries:
        versions[delivery.entity_id].append(delivery.event.task.version)
    return versions.values()
