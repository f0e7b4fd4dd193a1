from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.errors import (
    AlreadyExists,
    InvalidRequest,
    InvalidTransition,
)
from contracts.planning.tasks import (
    DeleteTask,
    DifferentInitiatives,
    ListTasks,
    RetryTask,
    UpdateTask,
)
from fleetbus.client import Bus
from tests.counting import Counted
from tests.kit.outbox import Outbox
from tests.planning.arrange import add_initiative, add_phase, add_task, depend, row

Statements = Callable[[], AbstractContextManager[Counted]]


class TestUpdateTask:
    async def test_only_what_is_given(self, bus: Bus, db: AsyncConnection, outbox: Outbox) -> None:
        id_ = await add_task(db, name="old", description="d", external_ref="r")

        task = await bus.call(UpdateTask(id=id_, name="new", description=None, priority="high"))

        assert (task.name, task.description, task.external_ref) == ("new", None, "r")
        assert task.version == 2
        assert (await row(db, id_)).priority_rank == 0
        (event,) = await outbox.all()
        assert (event.type, event.data["task"]["version"]) == ("task.updated", 2)

    async def test_nothing_really_changed(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        id_ = await add_task(db, name="same")

        task = await bus.call(UpdateTask(id=id_, name="same", description=None))

        assert task.version == 1
        assert await outbox.all() == []

    async def test_to_another_phase_of_the_initiative(self, bus: Bus, db: AsyncConnection) -> None:
        initiative_id = await add_initiative(db)
        one, other = [await add_phase(db, initiative_id) for _ in range(2)]
        id_ = await add_task(db, initiative_id=initiative_id, phase_id=one)

        assert (await bus.call(UpdateTask(id=id_, phase_id=other))).phase_id == other
        out = await bus.call(UpdateTask(id=id_, phase_id=None))
        assert (out.phase_id, out.initiative_id) == (None, initiative_id)

    async def test_to_a_phase_of_another_initiative(self, bus: Bus, db: AsyncConnection) -> None:
        id_ = await add_task(db)
        phase_id = await add_phase(db, await add_initiative(db))

        with pytest.raises(DifferentInitiatives):
            await bus.call(UpdateTask(id=id_, phase_id=phase_id))

    async def test_an_external_ref_that_is_taken(self, bus: Bus, db: AsyncConnection) -> None:
        initiative_id = await add_initiative(db)
        await add_task(db, initiative_id=initiative_id, external_ref="a")
        id_ = await add_task(db, initiative_id=initiative_id)

        with pytest.raises(AlreadyExists):
            await bus.call(UpdateTask(id=id_, external_ref="a"))

    async def test_a_name_cannot_be_cleared(self, bus: Bus, db: AsyncConnection) -> None:
        id_ = await add_task(db)
        command = UpdateTask(id=id_, name="x").model_copy(update={"name": None})

        with pytest.raises(InvalidRequest):
            await bus.call(command)


class TestDeleteTask:
    async def test_with_everything_below_it(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        top = await add_task(db)
        child = await add_task(db, parent_task_id=top)
        grandchild = await add_task(db, parent_task_id=child)
        other = await add_task(db)
        await depend(db, child, other)
        await depend(db, other, grandchild)

        deletion = await bus.call(DeleteTask(id=top))

        assert deletion.deleted.model_dump() == {"children": 2, "dependencies": 2}
        assert [task.id for task in (await bus.call(ListTasks())).items] == [other]
        told = [(event.type, event.entity_id) for event in await outbox.all()]
        assert told == [
            ("task.deleted", str(top)),
            ("task.dependency_removed", str(other)),
            ("task.ready", str(other)),
        ]
        assert (await row(db, other)).version == 2

    async def test_what_was_ready_before_is_not_told_again(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        done = await add_task(db, status="completed")
        await depend(db, await add_task(db), done)

        await bus.call(DeleteTask(id=done))

        told = [(event.type, event.data["task"]["version"]) for event in await outbox.all()]
        assert told == [("task.deleted", 2), ("task.dependency_removed", 2)]


class TestRetryTask:
    async def test_with_all_its_retries(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        id_ = await add_task(db, status="blocked", blocked_reason="why", retry_count=3)

        task = await bus.call(RetryTask(id=id_))

        assert (task.status, task.retry_count, task.blocked_reason) == ("pending", 0, None)
        assert await outbox.types() == ["task.retried", "task.ready"]

    async def test_only_what_is_blocked(self, bus: Bus, db: AsyncConnection) -> None:
        with pytest.raises(InvalidTransition) as refused:
            await bus.call(RetryTask(id=await add_task(db)))

        assert (refused.value.from_, refused.value.expected) == ("pending", "blocked")
