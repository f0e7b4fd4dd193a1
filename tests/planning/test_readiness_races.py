"""What is changed in an open transaction while something else makes tasks ready, or not."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.operation import Command
from bus.kit.ids import uuid7
from bus.storage import entities as _entities
from contracts.planning.initiatives import ArchiveInitiative, UnarchiveInitiative
from contracts.planning.phases import BlockPhase, StartPhase, UnblockPhase
from contracts.planning.tasks import (
    BlockTask,
    ClaimTasks,
    CreateManyTasks,
    CreateTask,
    DeleteTask,
    InitiativeClosed,
    ListTasks,
    NewTask,
    NewTaskItem,
    RemoveTaskDependency,
    RetryTask,
    Task,
    UpdateTask,
)
from fleetbus.client import Bus
from handlers.planning.task_rules import new_task
from persistence.planning import task_readiness as _task_readiness
from tests.bus.asking import eventually, waiting_for_locks
from tests.kit.outbox import Outbox
from tests.planning import arrange
from tests.planning.arrange import add_task, depend

BOTH = pytest.mark.parametrize("many", [False, True])


def made(many: bool, **fields: Any) -> Command[Any]:
    given = {"name": "new", **fields}
    if many:
        return CreateManyTasks(items=[NewTaskItem(**given)])
    return CreateTask(**given)


async def claimed(bus: Bus) -> set[str]:
    return {one.task.name for one in (await bus.call(ClaimTasks(agent_id="a", limit=50))).tasks}


async def meanwhile(bus: Bus, db: AsyncConnection, command: Command[Any]) -> asyncio.Task[Any]:
    """A command that waits for the open transaction of the test."""
    sent = asyncio.create_task(bus.call(command))
    await eventually(lambda: waiting_for_locks(db))
    return sent


class TestCreation:
    """What a new task follows from is changed, and not committed, while it is created."""

    @BOTH
    @pytest.mark.parametrize("below", [False, True])
    async def test_while_its_phase_starts(
        self, bus: Bus, db: AsyncConnection, many: bool, below: bool
    ) -> None:
        phase = await arrange.a_lone_phase(bus, status="approved")
        parent = await arrange.add_task_of(db, phase, "completed")
        fields = {"parent_task_id": parent} if below else {"phase_id": phase.id}

        await db.execute(text("BEGIN"))
        await db.execute(text("UPDATE planning.phases SET status = 'in_progress'"))
        creation = await meanwhile(bus, db, made(many, **fields))
        await db.execute(text("COMMIT"))
        await creation

        assert await claimed(bus) == {"new"}

    @BOTH
    async def test_while_its_initiative_is_archived(
        self, bus: Bus, db: AsyncConnection, many: bool
    ) -> None:
        initiative = await arrange.an_initiative(bus)

        await db.execute(text("BEGIN"))
        await db.execute(text("UPDATE planning.initiatives SET status = 'archived'"))
        creation = await meanwhile(bus, db, made(many, initiative_id=initiative.id))
        await db.execute(text("COMMIT"))
        with pytest.raises(InitiativeClosed):
            await creation

        assert await claimed(bus) == set()

    @BOTH
    async def test_while_its_parent_is_blocked(
        self, bus: Bus, db: AsyncConnection, many: bool
    ) -> None:
        parent = await add_task(db)

        await db.execute(text("BEGIN"))
        await db.execute(text("UPDATE planning.tasks SET status = 'blocked', version = 2"))
        creation = await meanwhile(bus, db, made(many, parent_task_id=parent))
        await db.execute(text("COMMIT"))
        await creation

        assert await claimed(bus) == set()


class TestChanges:
    """A new task is not committed yet while what it follows from changes."""

    @staticmethod
    async def create(db: AsyncConnection, **fields: Any) -> None:
        given = NewTask(name="new", **{k: v for k, v in fields.items() if k != "initiative_id"})
        task = new_task(given, None, None, None, id_=uuid7(), now=datetime.now(UTC))
        await _entities.add(db, [Task.trusted(task.__dict__ | fields)])

    async def test_a_phase_starts(self, bus: Bus, db: AsyncConnection, outbox: Outbox) -> None:
        phase = await arrange.a_lone_phase(bus, status="approved")
        parent = await arrange.add_task_of(db, phase, "completed")

        await db.execute(text("BEGIN"))
        fields = {"initiative_id": phase.initiative_id, "parent_task_id": parent}
        await self.create(db, **fields)
        started = await meanwhile(bus, db, StartPhase(id=phase.id))
        await db.execute(text("COMMIT"))
        await started

        assert (await outbox.types())[-1] == "task.ready"
        assert await claimed(bus) == {"new"}

    @pytest.mark.parametrize("command", [ArchiveInitiative, UnarchiveInitiative])
    async def test_an_initiative_rests_or_goes_on(
        self, bus: Bus, db: AsyncConnection, command: Any
    ) -> None:
        initiative = await arrange.an_initiative(bus)
        if command is UnarchiveInitiative:
            await bus.call(ArchiveInitiative(id=initiative.id))

        await db.execute(text("BEGIN"))
        await self.create(db, initiative_id=initiative.id)
        changed = await meanwhile(bus, db, command(id=initiative.id))
        await db.execute(text("COMMIT"))
        await changed

        assert await claimed(bus) == ({"new"} if command is UnarchiveInitiative else set())

    @pytest.mark.parametrize("command", [BlockTask, RetryTask])
    async def test_a_parent_is_blocked_or_tried_again(
        self, bus: Bus, db: AsyncConnection, command: Any
    ) -> None:
        blocked = {"status": "blocked", "blocked_reason": "why"} if command is RetryTask else {}
        parent = await add_task(db, **blocked)

        await db.execute(text("BEGIN"))
        await self.create(db, parent_task_id=parent)
        given = {"reason": "why"} if command is BlockTask else {}
        changed = await meanwhile(bus, db, command(id=parent, **given))
        await db.execute(text("COMMIT"))
        await changed

        assert await claimed(bus) == ({"new", "a task"} if command is RetryTask else set())


class TestMoves:
    async def test_into_a_phase_that_starts(self, bus: Bus, db: AsyncConnection) -> None:
        phase = await arrange.a_lone_phase(bus, status="approved")
        id_ = await add_task(db, name="moved", initiative_id=phase.initiative_id)

        await db.execute(text("BEGIN"))
        await db.execute(text("UPDATE planning.phases SET status = 'in_progress'"))
        moved = await meanwhile(bus, db, UpdateTask(id=id_, phase_id=phase.id))
        await db.execute(text("COMMIT"))
        await moved

        assert await claimed(bus) == {"moved"}

    async def test_while_the_phase_starts(self, bus: Bus, db: AsyncConnection) -> None:
        phase = await arrange.a_lone_phase(bus, status="approved")
        id_ = await add_task(db, name="moved", initiative_id=phase.initiative_id)

        await db.execute(text("BEGIN"))
        await _entities.lock(db, Task, [id_])
        change = text("UPDATE planning.tasks SET phase_id = :phase, version = 2 WHERE id = :id")
        await db.execute(change, {"phase": phase.id, "id": id_})
        assert await _task_readiness.refresh_moved(db, [id_]) == []
        started = await meanwhile(bus, db, StartPhase(id=phase.id))
        await db.execute(text("COMMIT"))
        await started

        assert await claimed(bus) == {"moved"}


class TestDependencies:
    @pytest.mark.parametrize("command", [BlockTask, RetryTask])
    async def test_of_a_child_while_its_parent_changes(
        self, bus: Bus, db: AsyncConnection, command: Any
    ) -> None:
        blocked = {"status": "blocked", "blocked_reason": "why"} if command is RetryTask else {}
        first = await add_task(db, name="first", category="plan")
        parent = await add_task(db, name="parent", **blocked)
        child = await add_task(db, name="child", parent_task_id=parent)
        await depend(db, child, first)

        # The child depends on nothing any more, and its parent is seen as it was.
        await db.execute(text("BEGIN"))
        await _entities.lock(db, Task, [child])
        await db.execute(text("DELETE FROM planning.task_dependencies"))
        await _task_readiness.refresh(db, [child])
        given = {"reason": "why"} if command is BlockTask else {}
        changed = await meanwhile(bus, db, command(id=parent, **given))
        await db.execute(text("COMMIT"))
        await changed

        assert await claimed(bus) == ({"parent", "child"} if command is RetryTask else set())

    async def test_many_changes_at_once(self, bus: Bus, db: AsyncConnection) -> None:
        for _ in range(10):
            phase = await arrange.a_lone_phase(bus, status="in_progress")
            first = await arrange.add_task_of(db, phase, "pending", name="first")
            parent = await arrange.add_task_of(db, phase, "pending", name="parent")
            child = await add_task(
                db, name="child", initiative_id=phase.initiative_id, parent_task_id=parent
            )
            await depend(db, child, first)
            await bus.call(BlockTask(id=parent, reason="why"))
            await bus.call(BlockPhase(id=phase.id, reason="why"))

            await asyncio.gather(
                bus.call(RetryTask(id=parent)),
                bus.call(UnblockPhase(id=phase.id)),
                bus.call(RemoveTaskDependency(id=child, depends_on_task_id=first)),
                bus.call(CreateTask(name="new", parent_task_id=child)),
                bus.call(UpdateTask(id=first, phase_id=None)),
            )

            assert await claimed(bus) == {"first", "parent", "child", "new"}


class TestDeletion:
    async def test_of_a_task_while_what_waits_for_it_goes(
        self, bus: Bus, db: AsyncConnection
    ) -> None:
        one, other, third = [await add_task(db) for _ in range(3)]
        await depend(db, other, one)
        await depend(db, third, one)

        await db.execute(text("BEGIN"))
        await db.execute(text("DELETE FROM planning.tasks WHERE id = :id"), {"id": other})
        deletion = await meanwhile(bus, db, DeleteTask(id=one))
        await db.execute(text("COMMIT"))

        assert (await deletion).id == one
        left = await bus.call(ListTasks())
        assert [(task.id, task.version) for task in left.items] == [(third, 2)]
