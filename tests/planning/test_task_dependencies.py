import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.errors import AlreadyExists, InvalidTransition
from bus.kit.cycles import find_cycle, find_path
from bus.kit.ids import uuid7
from bus.storage import entities as _entities
from contracts.planning.tasks import (
    AcceptLateResult,
    AddTaskDependency,
    CompleteTask,
    DependencyCycle,
    DependencyNotFound,
    DifferentInitiatives,
    ListTaskDependencies,
    ListTaskDependents,
    RemoveTaskDependency,
    StaleAttempt,
    Task,
)
from fleetbus.client import Bus
from tests.bus.asking import eventually, waiting_for_locks
from tests.kit.outbox import Outbox
from tests.planning.arrange import (
    add_claimed,
    add_initiative,
    add_phase,
    add_task,
    depend,
    edges,
    row,
)


class TestAddTaskDependency:
    async def test_added(self, bus: Bus, db: AsyncConnection, outbox: Outbox) -> None:
        id_, other = await add_task(db), await add_task(db)

        task = await bus.call(AddTaskDependency(id=id_, depends_on_task_id=other))

        assert (task.id, task.version) == (id_, 2)
        assert await edges(db) == {(id_, other)}
        assert (await row(db, id_)).version == 2
        (event,) = await outbox.all()
        assert (event.type, event.entity_id) == ("task.dependency_added", str(id_))
        assert event.data["depends_on_task_id"] == str(other)

    async def test_there_already(self, bus: Bus, db: AsyncConnection) -> None:
        id_, other = await add_task(db), await add_task(db)
        await depend(db, id_, other)

        with pytest.raises(AlreadyExists):
            await bus.call(AddTaskDependency(id=id_, depends_on_task_id=other))

    async def test_a_cycle_is_told_with_its_path(self, bus: Bus, db: AsyncConnection) -> None:
        a, b, c, d = [await add_task(db) for _ in range(4)]
        await depend(db, a, b, d)
        await depend(db, b, c)

        with pytest.raises(DependencyCycle) as refused:
            await bus.call(AddTaskDependency(id=c, depends_on_task_id=a))

        assert refused.value.path == [c, a, b, c]

    async def test_on_itself(self, bus: Bus, db: AsyncConnection) -> None:
        id_ = await add_task(db)

        with pytest.raises(DependencyCycle) as refused:
            await bus.call(AddTaskDependency(id=id_, depends_on_task_id=id_))

        assert refused.value.path == [id_, id_]

    @pytest.mark.parametrize("within", [True, False])
    async def test_two_halves_of_a_cycle_at_once(
        self, bus: Bus, db: AsyncConnection, within: bool
    ) -> None:
        initiative_id = await add_initiative(db) if within else None
        for _ in range(10):
            a, b = [await add_task(db, initiative_id=initiative_id) for _ in range(2)]

            answers = await asyncio.gather(
                bus.call(AddTaskDependency(id=a, depends_on_task_id=b)),
                bus.call(AddTaskDependency(id=b, depends_on_task_id=a)),
                return_exceptions=True,
            )

            assert sum(isinstance(answer, DependencyCycle) for answer in answers) == 1, answers
            assert len({(a, b), (b, a)} & await edges(db)) == 1

    async def test_into_another_initiative(self, bus: Bus, db: AsyncConnection) -> None:
        mine = await add_task(db, initiative_id=await add_initiative(db))
        other = await add_task(db, initiative_id=await add_initiative(db))

        for one, another in ((mine, other), (mine, await add_task(db))):
            with pytest.raises(DifferentInitiatives) as refused:
                await bus.call(AddTaskDependency(id=one, depends_on_task_id=another))
            assert (refused.value.id, refused.value.other_id) == (one, another)

    @pytest.mark.parametrize("status", ["in_progress", "completed"])
    async def test_of_what_has_begun(self, bus: Bus, db: AsyncConnection, status: str) -> None:
        id_ = await add_task(db, status=status)

        with pytest.raises(InvalidTransition) as refused:
            await bus.call(AddTaskDependency(id=id_, depends_on_task_id=await add_task(db)))

        assert refused.value.from_ == status


class TestRemoveTaskDependency:
    async def test_the_last_that_was_open(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        id_, one, other = [await add_task(db) for _ in range(3)]
        await depend(db, id_, one, other)

        await bus.call(RemoveTaskDependency(id=id_, depends_on_task_id=one))
        task = await bus.call(RemoveTaskDependency(id=id_, depends_on_task_id=other))

        assert task.version == 3
        assert await edges(db) == set()
        told = await outbox.types()
        assert told == ["task.dependency_removed"] * 2 + ["task.ready"]

    async def test_what_was_ready_before_is_not_told_again(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        id_, done = await add_task(db), await add_task(db, status="completed")
        await depend(db, id_, done)

        await bus.call(RemoveTaskDependency(id=id_, depends_on_task_id=done))

        assert await outbox.types() == ["task.dependency_removed"]

    async def test_no_such_dependency(self, bus: Bus, db: AsyncConnection) -> None:
        id_ = await add_task(db)
        for other in (await add_task(db), uuid7()):
            with pytest.raises(DependencyNotFound):
                await bus.call(RemoveTaskDependency(id=id_, depends_on_task_id=other))


class TestListTaskDependencies:
    async def test_pages(self, bus: Bus, db: AsyncConnection) -> None:
        id_ = await add_task(db)
        others = [await add_task(db, position=n) for n in range(3)]
        await depend(db, id_, *others)

        first = await bus.call(
            ListTaskDependencies(id=id_, order="-position", limit=2, count="exact")
        )
        second = await bus.call(
            ListTaskDependencies(id=id_, order="-position", limit=2, cursor=first.next_cursor)
        )

        assert [task.id for task in first.items + second.items] == others[::-1]
        assert (first.total, second.next_cursor) == (3, None)

    async def test_none(self, bus: Bus, db: AsyncConnection) -> None:
        assert (await bus.call(ListTaskDependencies(id=await add_task(db)))).items == []


class TestListTaskDependents:
    async def test_those_that_wait(self, bus: Bus, db: AsyncConnection) -> None:
        id_, one, other = [await add_task(db) for _ in range(3)]
        await depend(db, one, id_)
        await depend(db, other, id_)

        page = await bus.call(ListTaskDependents(id=id_))

        assert [task.id for task in page.items] == [one, other]


class TestTellReadyDependents:
    async def test_once_nothing_is_left_to_wait_for(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        one, other = [await add_claimed(db) for _ in range(2)]
        waits = await add_task(db)
        await depend(db, waits, one, other)

        await bus.call(CompleteTask(id=one))
        assert await outbox.ids("task.ready") == []

        await bus.call(CompleteTask(id=other), key="the cause")
        assert await outbox.ids("task.ready") == [str(waits)]
        event = await outbox.last()
        assert (event.cause, event.data["task"]["version"]) == (
            "reaction:tell_ready_dependents",
            1,
        )

    async def test_only_what_is_pending_and_whose_phase_is_in_progress(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        initiative_id = await add_initiative(db)
        asleep = await add_phase(db, initiative_id, status="approved")
        id_ = await add_claimed(db, initiative_id=initiative_id)
        await depend(db, await add_task(db, status="blocked"), id_)
        await depend(db, await add_task(db, phase_id=asleep), id_)

        await bus.call(CompleteTask(id=id_))

        assert await outbox.ids("task.ready") == []

    async def test_by_a_late_result(self, bus: Bus, db: AsyncConnection, outbox: Outbox) -> None:
        id_ = await add_claimed(db, attempt=2)
        waits = await add_task(db)
        await depend(db, waits, id_)
        with pytest.raises(StaleAttempt):
            await bus.call(CompleteTask(id=id_, attempt=1))

        await bus.call(AcceptLateResult(id=id_, attempt=1))

        assert await outbox.ids("task.ready") == [str(waits)]

    async def test_the_last_two_at_once(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        waiting = []
        for _ in range(10):
            one, other = [await add_claimed(db) for _ in range(2)]
            waits = await add_task(db)
            await depend(db, waits, one, other)
            waiting.append(str(waits))

            await asyncio.gather(*(bus.call(CompleteTask(id=id_)) for id_ in (one, other)))

        assert await outbox.ids("task.ready") == waiting

    async def test_one_that_was_added_while_the_completion_waited_for_its_task(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        id_, waits = await add_claimed(db), await add_task(db)

        await db.execute(text("BEGIN"))
        await _entities.lock(db, Task, [id_])
        completion = asyncio.create_task(bus.call(CompleteTask(id=id_)))
        await eventually(lambda: waiting_for_locks(db))
        await depend(db, waits, id_)
        await db.execute(text("COMMIT"))
        await completion

        assert await outbox.ids("task.ready") == [str(waits)]

    async def test_nothing_is_asked_for_where_nothing_waits(
        self, bus: Bus, db: AsyncConnection, statements: Callable[[], Any]
    ) -> None:
        id_, waited_for = await add_claimed(db), await add_claimed(db)
        await depend(db, await add_task(db), waited_for)

        with statements() as none_waits:
            await bus.call(CompleteTask(id=id_))
        with statements() as one_waits:
            await bus.call(CompleteTask(id=waited_for))

        assert none_waits.total == 2
        assert one_waits.total > 2

    async def test_completions_against_changes_of_dependencies(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        waiting = set()
        for _ in range(10):
            one, other = [await add_claimed(db) for _ in range(2)]
            waits = await add_task(db)
            await depend(db, waits, one, other)
            waiting.add(str(waits))

            await asyncio.gather(
                bus.call(CompleteTask(id=one)),
                bus.call(RemoveTaskDependency(id=waits, depends_on_task_id=other)),
                bus.call(CompleteTask(id=other)),
            )

        told = await outbox.ids("task.ready")
        assert len(told) == 10
        assert set(told) == waiting


GRAPHS = st.dictionaries(st.integers(0, 9), st.lists(st.integers(0, 9), max_size=4), max_size=10)


class TestCycles:
    @given(GRAPHS)
    def test_a_cycle_is_one_or_there_is_none(self, edges: dict[int, list[int]]) -> None:
        cycle = find_cycle(edges)

        if cycle:
            assert cycle[0] == cycle[-1]
            assert all(b in edges[a] for a, b in pairwise(cycle))
        else:
            closing = (a for a, others in edges.items() for b in others if find_path(edges, b, a))
            assert not any(True for _ in closing)

    @given(GRAPHS, st.integers(0, 9), st.integers(0, 9))
    def test_a_path_leads_from_one_to_the_other(
        self, edges: dict[int, list[int]], start: int, goal: int
    ) -> None:
        path = find_path(edges, start, goal)

        reached, new = {start}, {start}
        while new:
            new = {b for a in new for b in edges.get(a, ())} - reached
            reached |= new
        assert bool(path) == (goal in reached)
        if path:
            assert (path[0], path[-1]) == (start, goal)
            assert all(b in edges[a] for a, b in pairwise(path))
