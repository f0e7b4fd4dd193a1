from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.errors import (
    InvalidReference,
)
from bus.kit.ids import uuid7
from contracts.planning.tasks import (
    GetTask,
    GetTaskContext,
    GetTaskQueue,
    ListTasks,
)
from fleetbus.client import Bus
from tests.counting import Counted
from tests.planning.arrange import add_claimed, add_initiative, add_phase, add_task, depend

Statements = Callable[[], AbstractContextManager[Counted]]


class TestGetTask:
    async def test_one_statement(
        self, bus: Bus, db: AsyncConnection, statements: Statements
    ) -> None:
        id_ = await add_task(db, name="it")

        with statements() as counted:
            task = await bus.call(GetTask(id=id_))

        assert task.name == "it"
        assert counted.total == 1


class TestListTasks:
    async def test_one_statement(
        self, bus: Bus, db: AsyncConnection, statements: Statements
    ) -> None:
        for _ in range(3):
            await add_task(db)

        with statements() as counted:
            page = await bus.call(ListTasks(limit=2))

        assert len(page.items) == 2
        assert page.next_cursor is not None
        assert counted.total == 1

    @pytest.mark.parametrize(
        ("wanted", "names"),
        [
            ({}, {"ready", "waiting", "working", "done", "asleep"}),
            ({"status": "pending"}, {"ready", "waiting", "asleep"}),
            ({"ready": True}, {"ready"}),
            ({"ready": False}, {"waiting", "working", "done", "asleep"}),
            ({"category": "review"}, {"done"}),
            ({"priority": "high"}, {"waiting"}),
            ({"claimed_by": "agent"}, {"working"}),
            ({"search": "AIT"}, {"waiting"}),
            ({"search": "50%_"}, {"done"}),
            ({"search": "%"}, {"done"}),
        ],
    )
    async def test_filters(
        self, bus: Bus, db: AsyncConnection, wanted: dict[str, Any], names: set[str]
    ) -> None:
        asleep = await add_phase(db, await add_initiative(db), status="approved")
        ready = await add_task(db, name="ready")
        await depend(db, await add_task(db, name="waiting", priority="high"), ready)
        await add_claimed(db, name="working")
        await add_task(db, name="done", status="completed", category="review", description="50%_x")
        await add_task(db, name="asleep", phase_id=asleep)

        page = await bus.call(ListTasks(**wanted))

        assert {task.name for task in page.items} == names

    async def test_of_a_phase_an_initiative_or_a_parent(
        self, bus: Bus, db: AsyncConnection
    ) -> None:
        initiative_id = await add_initiative(db)
        phase_id = await add_phase(db, initiative_id)
        top = await add_task(db, initiative_id=initiative_id)
        low = await add_task(db, initiative_id=initiative_id, phase_id=phase_id, parent_task_id=top)
        await add_task(db)

        async def ids(query: ListTasks) -> set[UUID]:
            return {task.id for task in (await bus.call(query)).items}

        assert await ids(ListTasks(initiative_id=initiative_id)) == {top, low}
        assert await ids(ListTasks(phase_id=phase_id)) == {low}
        assert await ids(ListTasks(parent_task_id=top)) == {low}

    @pytest.mark.parametrize("order", ["created_at", "-created_at", "position", "-position"])
    async def test_pages_in_every_order(self, bus: Bus, db: AsyncConnection, order: Any) -> None:
        for n in range(7):
            await add_task(db, position=n // 3)

        found, cursor = [], None
        while True:
            page = await bus.call(ListTasks(order=order, limit=3, cursor=cursor, count="exact"))
            assert page.total == 7
            found += page.items
            if (cursor := page.next_cursor) is None:
                break

        keys = [(getattr(task, order.removeprefix("-")), task.id) for task in found]
        assert len(set(keys)) == 7
        assert keys == sorted(keys, reverse=order.startswith("-"))


class TestGetTaskContext:
    async def test_everything_around_it_in_one_statement(
        self, bus: Bus, db: AsyncConnection, statements: Statements
    ) -> None:
        initiative_id = await add_initiative(db, name="i", branch="main")
        phase_id = await add_phase(db, initiative_id, name="p", content={"type": "doc"})
        top = await add_task(db, name="top", initiative_id=initiative_id)
        id_ = await add_task(db, initiative_id=initiative_id, phase_id=phase_id, parent_task_id=top)
        for n in (2, 1):
            other = await add_task(
                db, name=f"d{n}", position=n, status="completed", summary="s" * 5_000
            )
            await depend(db, id_, other)
            await add_task(db, name=f"c{n}", position=n, parent_task_id=id_)

        with statements() as counted:
            context = await bus.call(GetTaskContext(id=id_))

        assert counted.total == 1
        assert context.task == await bus.call(GetTask(id=id_))
        assert context.phase is not None
        assert (context.phase.name, context.phase.content) == ("p", {"type": "doc"})
        assert context.initiative is not None
        assert (context.initiative.name, context.initiative.branch) == ("i", "main")
        assert context.parent is not None
        assert context.parent.name == "top"
        assert [task.name for task in context.dependencies] == ["d1", "d2"]
        assert context.dependencies[0].summary == "s" * 4_000
        assert [task.name for task in context.children] == ["c1", "c2"]

    async def test_nothing_around_it(self, bus: Bus, db: AsyncConnection) -> None:
        context = await bus.call(GetTaskContext(id=await add_task(db)))

        assert (context.phase, context.initiative, context.parent) == (None, None, None)
        assert (context.dependencies, context.children) == ([], [])


class TestGetTaskQueue:
    async def test_counts_in_one_statement(
        self, bus: Bus, db: AsyncConnection, statements: Statements
    ) -> None:
        mine, other = await add_initiative(db), await add_initiative(db)
        asleep = await add_phase(db, mine, status="approved")
        awake = await add_phase(db, mine)
        done = await add_task(db, initiative_id=mine, status="completed")
        first = await add_task(db, initiative_id=mine, phase_id=awake)
        await depend(db, await add_task(db, initiative_id=mine), first, done)
        await depend(db, await add_task(db, initiative_id=mine), done)
        await add_task(db, initiative_id=mine, phase_id=asleep)
        await add_claimed(db, initiative_id=mine)
        await add_task(db, initiative_id=mine, status="blocked")
        await add_task(db, initiative_id=other)

        with statements() as counted:
            queue = await bus.call(GetTaskQueue(initiative_id=mine))

        assert counted.total == 1
        assert queue.model_dump() == {
            "ready": 2,
            "waiting": 2,
            "in_progress": 1,
            "blocked": 1,
            "completed": 1,
        }
        assert (await bus.call(GetTaskQueue())).ready == 3

    async def test_an_empty_initiative_and_one_that_is_not_there(
        self, bus: Bus, db: AsyncConnection
    ) -> None:
        empty = await bus.call(GetTaskQueue(initiative_id=await add_initiative(db)))
        assert set(empty.model_dump().values()) == {0}

        with pytest.raises(InvalidReference):
            await bus.call(GetTaskQueue(initiative_id=uuid7()))
