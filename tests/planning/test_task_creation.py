from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.errors import (
    AlreadyExists,
    InvalidReference,
    InvalidRequest,
)
from bus.kit.ids import uuid7
from contracts.planning.tasks import (
    CreateManyTasks,
    CreateTask,
    DependencyCycle,
    DifferentInitiatives,
    GetTask,
    ListTasks,
    NewTaskItem,
)
from fleetbus.client import Bus
from tests.counting import Counted
from tests.kit.outbox import Outbox
from tests.planning.arrange import add_initiative, add_phase, add_task, edges, row

Statements = Callable[[], AbstractContextManager[Counted]]


class TestCreateTask:
    async def test_a_name_is_enough(self, bus: Bus, outbox: Outbox) -> None:
        task = await bus.call(CreateTask(name="Write it"))

        assert (task.status, task.version, task.attempt) == ("pending", 1, 0)
        assert (task.category, task.priority, task.type) == ("execute", "medium", "auto")
        assert await bus.call(GetTask(id=task.id)) == task
        (event,) = await outbox.all()
        assert (event.type, event.entity_id) == ("task.created", str(task.id))
        assert (event.data["task"]["name"], event.data["depends_on"]) == ("Write it", [])

    async def test_the_phase_gives_the_initiative(self, bus: Bus, db: AsyncConnection) -> None:
        initiative_id = await add_initiative(db)
        phase_id = await add_phase(db, initiative_id)

        task = await bus.call(CreateTask(name="x", phase_id=phase_id))

        assert (task.initiative_id, task.phase_id) == (initiative_id, phase_id)

    async def test_the_parent_gives_the_initiative(self, bus: Bus, db: AsyncConnection) -> None:
        initiative_id = await add_initiative(db)
        parent_id = await add_task(db, initiative_id=initiative_id)

        task = await bus.call(CreateTask(name="x", parent_task_id=parent_id))

        assert (task.initiative_id, task.parent_task_id) == (initiative_id, parent_id)

    async def test_another_initiative_than_that_of_the_phase(
        self, bus: Bus, db: AsyncConnection
    ) -> None:
        phase_id = await add_phase(db, await add_initiative(db))
        other = await add_initiative(db)

        with pytest.raises(DifferentInitiatives):
            await bus.call(CreateTask(name="x", phase_id=phase_id, initiative_id=other))

    async def test_a_parent_of_another_initiative(self, bus: Bus, db: AsyncConnection) -> None:
        parent_id = await add_task(db, initiative_id=await add_initiative(db))
        other = await add_initiative(db)

        with pytest.raises(DifferentInitiatives) as refused:
            await bus.call(CreateTask(name="x", parent_task_id=parent_id, initiative_id=other))

        assert refused.value.other_id == parent_id

    async def test_an_external_ref_is_unique_in_its_initiative(
        self, bus: Bus, db: AsyncConnection
    ) -> None:
        one, other = await add_initiative(db), await add_initiative(db)
        await bus.call(CreateTask(name="x", initiative_id=one, external_ref="T-1"))
        await bus.call(CreateTask(name="x", initiative_id=other, external_ref="T-1"))

        with pytest.raises(AlreadyExists):
            await bus.call(CreateTask(name="x", initiative_id=one, external_ref="T-1"))

    async def test_an_id_that_is_taken(self, bus: Bus) -> None:
        id_ = uuid7()
        assert (await bus.call(CreateTask(id=id_, name="x"))).id == id_

        with pytest.raises(AlreadyExists):
            await bus.call(CreateTask(id=id_, name="y"))

    async def test_an_existing_plan_is_brought_in(self, bus: Bus) -> None:
        done = await bus.call(CreateTask(name="x", status="completed", summary="s", result=[1]))
        held = await bus.call(CreateTask(name="y", status="blocked", blocked_reason="later"))

        assert (done.status, done.summary, done.result) == ("completed", "s", [1])
        assert (held.status, held.blocked_reason) == ("blocked", "later")

    @pytest.mark.parametrize(
        "wrong",
        [
            {"status": "blocked"},
            {"blocked_reason": "why"},
            {"summary": "s"},
            {"result": 1},
            {"status": "in_progress"},
            {"name": " "},
        ],
    )
    async def test_what_does_not_fit_together(self, bus: Bus, wrong: dict[str, Any]) -> None:
        command = CreateTask.model_construct(_fields_set={"name", *wrong}, **{"name": "x"} | wrong)

        with pytest.raises(InvalidRequest):
            await bus.call(command)


class TestCreateManyTasks:
    async def test_parents_and_dependencies_by_local_ref(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        before = await add_task(db)
        made = await bus.call(
            CreateManyTasks(
                items=[
                    NewTaskItem(ref="child", name="c", parent="top", depends_on=["first", "first"]),
                    NewTaskItem(ref="first", name="f", depends_on=[str(before)]),
                    NewTaskItem(ref="top", name="t"),
                    NewTaskItem(name="nameless"),
                ]
            )
        )

        assert [item.ref for item in made.items] == ["child", "first", "top", None]
        child, first, top, _ = (item.id for item in made.items)
        assert (await row(db, child)).parent_task_id == top
        assert await edges(db) == {(child, first), (first, before)}
        events = await outbox.all()
        assert [event.type for event in events] == ["task.created"] * 4
        assert events[0].data["depends_on"] == [str(first)]
        assert events[1].data["depends_on"] == [str(before)]

    async def test_five_hundred_cost_no_more_statements_than_one(
        self, bus: Bus, db: AsyncConnection, statements: Statements
    ) -> None:
        phase_id = await add_phase(db, await add_initiative(db))
        items = [
            NewTaskItem(
                ref=str(n), name="x", phase_id=phase_id, depends_on=[str(n - 1)] if n else []
            )
            for n in range(500)
        ]

        with statements() as counted:
            made = await bus.call(CreateManyTasks(items=items))

        assert len({item.id for item in made.items}) == 500
        assert counted.total == 5, counted.texts

    @pytest.mark.parametrize(
        ("items", "field"),
        [
            ([{"depends_on": ["nobody"]}], "items.0.depends_on.0"),
            ([{}, {"depends_on": [str(UUID(int=7))]}], "items.1.depends_on.0"),
            ([{}, {"parent": "nobody"}], "items.1.parent"),
            ([{"parent_task_id": UUID(int=7)}], "items.0.parent_task_id"),
            ([{"phase_id": UUID(int=7)}], "items.0.phase_id"),
            ([{"initiative_id": UUID(int=7)}], "items.0.initiative_id"),
        ],
    )
    async def test_a_reference_to_nothing(
        self, bus: Bus, items: list[dict[str, Any]], field: str, outbox: Outbox
    ) -> None:
        command = CreateManyTasks(items=[NewTaskItem(name="x", **item) for item in items])

        with pytest.raises(InvalidReference) as refused:
            await bus.call(command)

        assert refused.value.field == field
        assert await outbox.all() == []

    @pytest.mark.parametrize(
        "relations",
        [
            {"a": {"depends_on": ["b"]}, "b": {"depends_on": ["c"]}, "c": {"depends_on": ["a"]}},
            {"a": {"parent": "b"}, "b": {"parent": "c"}, "c": {"parent": "a"}},
        ],
    )
    async def test_a_cycle_is_told_by_local_refs(
        self, bus: Bus, relations: dict[str, Any], outbox: Outbox
    ) -> None:
        items = [NewTaskItem(ref=ref, name="x", **given) for ref, given in relations.items()]
        items.append(NewTaskItem(ref="behind", name="x", depends_on=["a"]))

        with pytest.raises(DependencyCycle) as refused:
            await bus.call(CreateManyTasks(items=items))

        path = refused.value.path
        assert path[0] == path[-1]
        assert set(path) == {"a", "b", "c"}
        assert await outbox.all() == []

    async def test_a_dependency_in_another_initiative(self, bus: Bus, db: AsyncConnection) -> None:
        other = await add_task(db, initiative_id=await add_initiative(db))

        with pytest.raises(DifferentInitiatives) as refused:
            await bus.call(CreateManyTasks(items=[NewTaskItem(name="x", depends_on=[str(other)])]))

        assert refused.value.other_id == other

    async def test_an_external_ref_that_is_taken_keeps_all_out(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        initiative_id = await add_initiative(db)
        await add_task(db, initiative_id=initiative_id, external_ref="T-1")
        refs = ["T-2", "T-1"]

        with pytest.raises(AlreadyExists):
            await bus.call(
                CreateManyTasks(
                    items=[
                        NewTaskItem(name="x", initiative_id=initiative_id, external_ref=ref)
                        for ref in refs
                    ]
                )
            )

        assert (await bus.call(ListTasks(count="exact"))).total == 1
        assert await outbox.all() == []

    async def test_a_ref_that_stands_twice(self, bus: Bus) -> None:
        items = [NewTaskItem(ref="a", name="x"), NewTaskItem(ref="a", name="y")]

        with pytest.raises(InvalidRequest) as refused:
            await bus.call(CreateManyTasks.model_construct(_fields_set={"items"}, items=items))

        assert refused.value.errors[0].field == "items"
