"""What is told of a task fits into one message, whatever surrounds it and however long it is."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.kit.ids import uuid7
from bus.storage import entities as _entities
from contracts.planning.tasks import (
    ClaimedTasks,
    ClaimTasks,
    GetTask,
    GetTaskContext,
    GetTaskQueue,
    NewTask,
    PhaseBrief,
    Task,
    TaskBrief,
    TaskContext,
)
from fleetbus.client import Bus
from handlers.planning._task_shortening import MARK, shorten
from handlers.planning.task_rules import new_task
from tests.planning import arrange
from tests.planning.arrange import add_task, depend

ESCAPED = "\x1b"
"""One character, six bytes of JSON."""

ORDER = (
    *("phase.content", "parent.summary", "children.summary", "dependencies.summary"),
    *("children", "dependencies"),
    *("task.late_results", "task.result", "task.summary", "task.description"),
)


async def surrounded(bus: Bus, db: AsyncConnection, **fields: Any) -> Any:
    """A task with more around it than fits into a message."""
    content = {"text": ESCAPED * 40_000}
    phase = await arrange.a_lone_phase(bus, status="in_progress", content=content)
    id_ = await arrange.add_task_of(db, phase, "pending", **fields)
    for _ in range(60):
        await depend(db, id_, await add_task(db, status="completed", summary=ESCAPED * 4_000))
    return id_


class TestClaims:
    @pytest.mark.parametrize("limit", [1, 50])
    async def test_much_around_a_long_task(self, bus: Bus, db: AsyncConnection, limit: int) -> None:
        description = ESCAPED * 80_000
        id_ = await surrounded(bus, db, description=description)

        (one,) = (await bus.call(ClaimTasks(agent_id="a", limit=limit))).tasks

        assert one.shortened == ["phase.content", "dependencies.summary"]
        assert one.task.description == description
        assert one.phase is not None
        assert one.phase.content is None
        assert len(one.dependencies) == 60
        assert await bus.call(GetTask(id=id_)) == one.task

    async def test_only_what_has_to_is_cut(self, bus: Bus, db: AsyncConnection) -> None:
        content = {"text": ESCAPED * 40_000}
        phase = await arrange.a_lone_phase(bus, status="in_progress", content=content)
        id_ = await arrange.add_task_of(db, phase, "pending", description=ESCAPED * 100_000)
        for _ in range(10):
            await depend(db, id_, await add_task(db, status="completed", summary=ESCAPED * 4_000))

        (one,) = (await bus.call(ClaimTasks(agent_id="a"))).tasks

        assert one.shortened == ["phase.content"]
        assert {other.summary for other in one.dependencies} == {ESCAPED * 4_000}

    async def test_fewer_than_asked_for_and_the_others_stay_ready(
        self, bus: Bus, db: AsyncConnection
    ) -> None:
        made = [await add_task(db, description=ESCAPED * 50_000) for _ in range(8)]
        taken = []
        while found := (await bus.call(ClaimTasks(agent_id="a", limit=50))).tasks:
            assert len(found) in {2, 3}
            assert [one.shortened for one in found] == [[]] * len(found)
            taken += [one.task.id for one in found]
            ready = (await bus.call(GetTaskQueue())).ready
            assert ready == len(made) - len(taken)
        assert taken == made


class TestContext:
    async def test_a_task_larger_than_a_message(self, bus: Bus, db: AsyncConnection) -> None:
        late = {"attempt": 1, "summary": ESCAPED * 20_000, "result": None}
        late["received_at"] = "2026-01-01T00:00:00Z"
        long: Any = {"description": ESCAPED * 100_000, "summary": ESCAPED * 20_000}
        id_ = await surrounded(bus, db, **long, result="x" * 250_000, late_results=[late])

        context = await bus.call(GetTaskContext(id=id_))

        assert context.shortened == [
            *("phase.content", "dependencies.summary", "dependencies", "task.late_results")
        ]
        assert context.task.late_results == []
        assert (context.task.description, context.task.summary) == tuple(long.values())

    async def test_much_around_a_task(self, bus: Bus, db: AsyncConnection) -> None:
        id_ = await surrounded(bus, db)
        for _ in range(60):
            await add_task(db, parent_task_id=id_, summary=ESCAPED * 4_000)

        context = await bus.call(GetTaskContext(id=id_))

        assert context.shortened == ["phase.content", "children.summary", "dependencies.summary"]
        assert (len(context.children), len(context.dependencies)) == (60, 60)


TEXTS = st.builds(
    lambda letter, length: letter * length,
    st.sampled_from(["a", "€", ESCAPED, "\U0001f600"]),
    st.integers(0, 3_000),
)
BRIEFS = st.lists(
    st.builds(
        lambda name, summary: TaskBrief(
            id=uuid7(), name=f"n{name}"[:500], status="completed", summary=summary
        ),
        TEXTS,
        st.none() | TEXTS,
    ),
    max_size=6,
)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def task_of(description: str, summary: str | None, result: Any) -> Task:
    plain = NewTask.model_construct(name="a task", status="pending")
    made = new_task(plain, None, None, None, id_=uuid7(), now=NOW)
    return made.evolve(NOW, description=description, summary=summary, result=result)


class TestShorten:
    @hypothesis_settings(max_examples=150, deadline=None)
    @given(
        st.builds(task_of, TEXTS, st.none() | TEXTS, st.none() | TEXTS),
        st.none() | TEXTS,
        BRIEFS,
        BRIEFS,
        st.integers(3_000, 60_000),
    )
    def test_what_is_told_fits_and_says_what_is_missing(
        self,
        task: Task,
        content: str | None,
        dependencies: list[TaskBrief],
        children: list[TaskBrief],
        room: int,
    ) -> None:
        item = TaskContext(
            task=task,
            phase=PhaseBrief(
                id=uuid7(),
                name="p",
                status="in_progress",
                content=None if content is None else {"text": content},
            ),
            initiative=None,
            dependencies=dependencies,
            parent=children[0] if children else None,
            children=children,
        )
        before = item.model_dump_json()

        told = shorten(item, room)

        assert len(ClaimedTasks(tasks=[told]).model_dump_json().encode()) <= room
        assert list(told.shortened) == [name for name in ORDER if name in told.shortened]
        for name in ("name", "status", "id", "attempt"):
            assert getattr(told.task, name) == getattr(task, name)
        kept = told.task.description or ""
        if "task.description" in told.shortened:
            assert task.description is not None
            assert task.description.startswith(kept.removesuffix(MARK))
        else:
            assert told.task.description == task.description
        if not told.shortened:
            assert told is item
        assert item.model_dump_json() == before
        assert _entities.encode([task]) == _entities.encode([item.task])
