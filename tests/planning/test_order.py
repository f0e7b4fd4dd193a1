"""What waits for what is one graph over tasks and phases: nobody closes a circle in it."""

import asyncio
from collections.abc import Awaitable
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.planning.phases import AddPhaseDependency, GetPhase, ListPhases, Phase
from contracts.planning.tasks import (
    AddTaskDependency,
    CreateManyTasks,
    CreateTask,
    DependencyCycle,
    GetTask,
    ListTasks,
    NewTaskItem,
    UpdateTask,
)
from fleetbus.client import Bus
from tests.kit.outbox import Outbox
from tests.planning import arrange
from tests.planning.arrange import depend, edges

ROUNDS = 10
"""How often two calls are made at once; they do not meet every time."""


async def phases(bus: Bus, *names: str) -> list[Phase]:
    """Phases of one initiative, each waiting for the one before it."""
    initiative = await arrange.an_initiative(bus)
    made = [await arrange.a_phase(bus, initiative.id, name) for name in names]
    for before, after in pairwise(made):
        await arrange.depend_on_phase(bus, after, before)
    return made


async def add(bus: Bus, phase: Phase | None = None, **fields: Any) -> UUID:
    phase_id = phase.id if phase is not None else None
    made = await bus.call(CreateTask(name="t", phase_id=phase_id, **fields))
    return made.id


async def refused(call: Awaitable[Any]) -> DependencyCycle:
    with pytest.raises(DependencyCycle) as caught:
        await call
    told = caught.value
    assert told.path[0] == told.path[-1]
    assert told.nodes is not None
    assert [node.id for node in told.nodes] == told.path
    return told


def kinds(told: DependencyCycle) -> list[str]:
    assert told.nodes is not None
    return [node.entity for node in told.nodes]


class TestCirclesOverBothLevels:
    async def test_a_task_for_one_in_a_phase_that_waits(self, bus: Bus) -> None:
        one, two = await phases(bus, "one", "two")
        a, b = await add(bus, one), await add(bus, two)

        told = await refused(bus.call(AddTaskDependency(id=a, depends_on_task_id=b)))

        assert told.path == [a, b, two.id, one.id, a]
        assert kinds(told) == ["task", "task", "phase", "phase", "task"]
        assert (await bus.call(GetTask(id=a))).version == 1

    async def test_a_phase_for_one_with_a_task_that_waits(
        self, bus: Bus, db: AsyncConnection
    ) -> None:
        one, two = await arrange.two_phases(bus)
        a, b = await add(bus, one), await add(bus, two)
        await bus.call(AddTaskDependency(id=a, depends_on_task_id=b))

        told = await refused(arrange.depend_on_phase(bus, two, one))

        assert told.path == [two.id, one.id, a, b, two.id]
        assert (await bus.call(GetPhase(id=two.id))).version == 1
        assert await edges(db) == {(a, b)}

    async def test_over_many_phases_and_tasks(self, bus: Bus) -> None:
        one, _, _, four = await phases(bus, "one", "two", "three", "four")
        a, outside, b = await add(bus, one), await add(bus, initiative_id=one.initiative_id), None
        b = await add(bus, four)
        await bus.call(AddTaskDependency(id=outside, depends_on_task_id=b))

        told = await refused(bus.call(AddTaskDependency(id=a, depends_on_task_id=outside)))

        assert told.path[:4] == [a, outside, b, four.id]

    async def test_against_the_order_of_phases_only(self, bus: Bus) -> None:
        one, two = await phases(bus, "one", "two")
        a, b = await add(bus, one), await add(bus, two)

        await bus.call(AddTaskDependency(id=b, depends_on_task_id=a))
        await bus.call(AddTaskDependency(id=await add(bus, one), depends_on_task_id=a))

    async def test_a_child_is_in_the_phase_of_its_parent(self, bus: Bus) -> None:
        one, two = await phases(bus, "one", "two")
        a = await add(bus, one)
        child = await add(bus, parent_task_id=await add(bus, parent_task_id=await add(bus, two)))

        told = await refused(bus.call(AddTaskDependency(id=a, depends_on_task_id=child)))
        assert told.path == [a, child, two.id, one.id, a]
        below = await add(bus, parent_task_id=await add(bus, one))
        told = await refused(bus.call(AddTaskDependency(id=below, depends_on_task_id=child)))
        assert told.path == [below, child, two.id, one.id, below]

    async def test_what_a_task_above_waits_for(self, bus: Bus) -> None:
        one, two = await phases(bus, "one", "two")
        top, b = await add(bus, initiative_id=one.initiative_id), await add(bus, two)
        below = await add(bus, one, parent_task_id=top)

        told = await refused(bus.call(AddTaskDependency(id=top, depends_on_task_id=b)))

        assert told.path == [top, b, two.id, one.id, below, top]


class TestCirclesOverParents:
    async def test_a_parent_for_its_own_child(self, bus: Bus) -> None:
        top = await add(bus)
        below = await add(bus, parent_task_id=await add(bus, parent_task_id=top))

        told = await refused(bus.call(AddTaskDependency(id=top, depends_on_task_id=below)))

        assert (told.path[:2], told.path[-1]) == ([top, below], top)

    async def test_a_child_may_wait_for_its_parent(self, bus: Bus) -> None:
        top = await add(bus)
        below = await add(bus, parent_task_id=top)

        waits = await bus.call(AddTaskDependency(id=below, depends_on_task_id=top))

        assert waits.version == 2

    async def test_through_a_child(self, bus: Bus) -> None:
        top, other = await add(bus), await add(bus)
        below = await add(bus, parent_task_id=top)
        await bus.call(AddTaskDependency(id=other, depends_on_task_id=below))

        told = await refused(bus.call(AddTaskDependency(id=top, depends_on_task_id=other)))

        assert told.path == [top, other, below, top]


class TestCirclesByOtherOperations:
    async def test_by_a_move(self, bus: Bus) -> None:
        one, two = await phases(bus, "one", "two")
        a, b = [await add(bus, initiative_id=one.initiative_id) for _ in "ab"]
        await bus.call(AddTaskDependency(id=a, depends_on_task_id=b))
        await bus.call(UpdateTask(id=b, phase_id=two.id))

        told = await refused(bus.call(UpdateTask(id=a, phase_id=one.id)))

        assert told.path == [a, b, two.id, one.id, a]
        assert (await bus.call(GetTask(id=a))).phase_id is None

    async def test_by_a_move_of_a_parent(self, bus: Bus) -> None:
        one, two = await phases(bus, "one", "two")
        top = await add(bus, initiative_id=one.initiative_id)
        below, b = await add(bus, parent_task_id=top), await add(bus, two)
        await bus.call(AddTaskDependency(id=below, depends_on_task_id=b))

        told = await refused(bus.call(UpdateTask(id=top, phase_id=one.id)))

        assert set(told.path) == {below, b, two.id, one.id}

    async def test_by_a_move_out_of_a_phase_into_that_of_its_parent(self, bus: Bus) -> None:
        one, two = await phases(bus, "one", "two")
        below = await add(bus, two, parent_task_id=await add(bus, one))
        await bus.call(AddTaskDependency(id=below, depends_on_task_id=await add(bus, two)))

        await refused(bus.call(UpdateTask(id=below, phase_id=None)))

    async def test_by_many(self, bus: Bus, outbox: Outbox) -> None:
        one, two = await phases(bus, "one", "two")
        items = [
            NewTaskItem(ref="a", name="a", phase_id=one.id, depends_on=["b"]),
            NewTaskItem(ref="b", name="b", phase_id=two.id),
        ]
        before = await outbox.count()

        told = await refused(bus.call(CreateManyTasks(items=items)))

        assert told.path == ["a", "b", two.id, one.id, "a"]
        assert (await outbox.count(), (await bus.call(ListTasks())).items) == (before, [])

    async def test_by_many_on_what_is_there(self, bus: Bus) -> None:
        one, two = await phases(bus, "one", "two")
        b = await add(bus, two)
        item = NewTaskItem(name="a", phase_id=one.id, depends_on=[str(b)])

        told = await refused(bus.call(CreateManyTasks(items=[item])))

        assert told.path[1:4] == [b, two.id, one.id]

    async def test_by_many_a_parent_for_its_child(self, bus: Bus) -> None:
        items = [
            NewTaskItem(ref="top", name="x", depends_on=["below"]),
            NewTaskItem(ref="below", name="x", parent="top"),
        ]

        told = await refused(bus.call(CreateManyTasks(items=items)))

        assert set(told.path) == {"top", "below"}

    async def test_by_one_whose_parent_waits(self, bus: Bus) -> None:
        one, two = await phases(bus, "one", "two")
        top = await add(bus, initiative_id=one.initiative_id)
        b = await add(bus, two)
        await bus.call(AddTaskDependency(id=top, depends_on_task_id=b))

        told = await refused(
            bus.call(CreateTask(name="below", phase_id=one.id, parent_task_id=top))
        )

        assert told.path[1:] == [top, b, two.id, one.id, told.path[0]]


class TestTwoHalvesAtOnce:
    async def test_one_on_each_level(self, bus: Bus) -> None:
        for _ in range(ROUNDS):
            one, two = await arrange.two_phases(bus)
            a, b = await add(bus, one), await add(bus, two)

            answers = await asyncio.gather(
                bus.call(AddPhaseDependency(id=two.id, depends_on_phase_id=one.id)),
                bus.call(AddTaskDependency(id=a, depends_on_task_id=b)),
                return_exceptions=True,
            )

            assert sum(isinstance(answer, DependencyCycle) for answer in answers) == 1, answers

    async def test_a_move_and_a_dependency(self, bus: Bus) -> None:
        for _ in range(ROUNDS):
            one, two = await phases(bus, "one", "two")
            a = await add(bus, initiative_id=one.initiative_id)
            b = await add(bus, two)

            answers = await asyncio.gather(
                bus.call(UpdateTask(id=a, phase_id=one.id)),
                bus.call(AddTaskDependency(id=a, depends_on_task_id=b)),
                return_exceptions=True,
            )

            assert sum(isinstance(answer, DependencyCycle) for answer in answers) == 1, answers


class TestWhatWasThereBefore:
    async def test_an_old_circle_is_no_reason_to_refuse_what_closes_none(
        self, bus: Bus, db: AsyncConnection
    ) -> None:
        a, b, c = [await add(bus) for _ in "abc"]
        await depend(db, a, b)
        await depend(db, b, a)

        waits = await bus.call(AddTaskDependency(id=c, depends_on_task_id=a))

        assert waits.version == 2
        assert (await bus.call(ListPhases())).items == []
