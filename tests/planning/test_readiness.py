"""What makes a task ready or not, case by case: told once, and given out only then."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.planning.initiatives import (
    ArchiveInitiative,
    GetInitiativeOverview,
    RequestInitiativeChanges,
    UnarchiveInitiative,
)
from contracts.planning.phases import (
    BlockPhase,
    CompletePhase,
    DeletePhase,
    RequestPhaseChanges,
    StartPhase,
    UnblockPhase,
)
from contracts.planning.tasks import (
    AcceptLateResult,
    BlockTask,
    ClaimTasks,
    CompleteTask,
    CreateManyTasks,
    CreateTask,
    GetTask,
    GetTaskContext,
    GetTaskQueue,
    ListTasks,
    NewTaskItem,
    ReleaseTask,
    RetryTask,
    StaleAttempt,
    UpdateTask,
)
from fleetbus.client import Bus
from tests.kit.outbox import Outbox
from tests.planning import arrange
from tests.planning.arrange import add_claimed, add_task, depend, row


async def told_ready(outbox: Outbox) -> list[UUID]:
    return [UUID(event.entity_id) for event in await outbox.all() if event.type == "task.ready"]


async def claim(bus: Bus, **filters: Any) -> list[UUID]:
    claimed = await bus.call(ClaimTasks(agent_id="a", limit=50, **filters))
    return [one.task.id for one in claimed.tasks]


async def ready(bus: Bus) -> set[UUID]:
    return {task.id for task in (await bus.call(ListTasks(ready=True))).items}


class TestInitiatives:
    async def test_archived_and_back(self, bus: Bus, outbox: Outbox) -> None:
        made = await arrange.an_initiative(bus)
        phase = await arrange.a_phase(bus, made.id, status="in_progress")
        tasks = [
            await bus.call(CreateTask(name="alone", initiative_id=made.id)),
            await bus.call(CreateTask(name="in a phase", phase_id=phase.id)),
        ]
        await bus.call(ArchiveInitiative(id=made.id))

        for filters in ({}, {"initiative_id": made.id}, {"phase_id": phase.id}):
            assert await claim(bus, **filters) == []
        assert (await bus.call(GetTaskQueue(initiative_id=made.id))).waiting == 2

        await bus.call(UnarchiveInitiative(id=made.id))

        ids = [task.id for task in tasks]
        assert await told_ready(outbox) == ids
        assert await claim(bus, initiative_id=made.id) == ids

    @pytest.mark.parametrize("status", ["pending_review", "completed", "archived"])
    async def test_only_an_active_one(self, bus: Bus, db: AsyncConnection, status: str) -> None:
        made = await arrange.an_initiative(bus)
        await arrange.set_status(db, made, status)
        await add_task(db, initiative_id=made.id)

        assert await claim(bus) == []

    async def test_changes_requested(self, bus: Bus, db: AsyncConnection, outbox: Outbox) -> None:
        made = await arrange.an_initiative(bus)
        id_ = await add_task(db, initiative_id=made.id)
        await arrange.set_status(db, made, "pending_review")

        await bus.call(RequestInitiativeChanges(id=made.id, summary="more"))

        assert await told_ready(outbox) == [id_]

    async def test_back_in_the_queue_of_an_archived_one(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        made = await arrange.an_initiative(bus)
        mine = await add_claimed(db, initiative_id=made.id)
        await bus.call(ArchiveInitiative(id=made.id))

        await bus.call(ReleaseTask(id=mine, attempt=1, reason="tired"))

        assert await told_ready(outbox) == []
        assert await claim(bus) == []
        await bus.call(UnarchiveInitiative(id=made.id))
        assert await told_ready(outbox) == [mine]


class TestPhases:
    async def test_started_blocked_and_taken_up_again(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        phase = await arrange.a_lone_phase(bus, status="approved")
        id_ = await arrange.add_task_of(db, phase, "pending")
        await arrange.add_task_of(db, phase, "completed")

        await bus.call(StartPhase(id=phase.id))
        await bus.call(BlockPhase(id=phase.id, reason="why"))
        assert await claim(bus) == []
        await bus.call(UnblockPhase(id=phase.id))

        assert await told_ready(outbox) == [id_, id_]
        assert await claim(bus) == [id_]

    async def test_changes_requested(self, bus: Bus, db: AsyncConnection, outbox: Outbox) -> None:
        phase = await arrange.a_lone_phase(bus, status="in_progress")
        id_ = await arrange.add_task_of(db, phase, "pending")
        await arrange.set_status(db, phase, "pending_review")

        await bus.call(RequestPhaseChanges(id=phase.id, summary="more"))

        assert await told_ready(outbox) == [id_]

    async def test_completed_with_what_is_left(self, bus: Bus, db: AsyncConnection) -> None:
        phase = await arrange.a_lone_phase(bus, status="in_progress")
        await arrange.add_task_of(db, phase, "pending")

        await bus.call(CompletePhase(id=phase.id))

        assert await claim(bus) == []

    async def test_deleted_with_what_others_waited_for(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        gone, stays = await arrange.two_phases(bus, status="in_progress")
        first = await arrange.add_task_of(db, gone)
        below = await add_task(db, initiative_id=gone.initiative_id, parent_task_id=first)
        waits = await arrange.add_task_of(db, stays, "pending")
        await depend(db, waits, first, below)
        lower = await add_task(db, initiative_id=gone.initiative_id, parent_task_id=waits)

        await bus.call(DeletePhase(id=gone.id))

        events = [event for event in await outbox.all() if event.type.startswith("task.")]
        assert [event.type for event in events] == [
            *("task.dependency_removed", "task.dependency_removed"),
            *("task.ready", "task.ready"),
        ]
        assert {UUID(event.data["depends_on_task_id"]) for event in events[:2]} == {first, below}
        assert [event.data["task"]["version"] for event in events[:2]] == [2, 3]
        assert {UUID(event.entity_id) for event in events[2:]} == {waits, lower}
        assert (await bus.call(GetTask(id=waits))).version == 3
        assert set(await claim(bus)) == {waits, lower}

    async def test_moved_to_one_that_goes_on(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        made = await arrange.an_initiative(bus)
        waits = await arrange.a_phase(bus, made.id, "waits")
        goes_on = await arrange.a_phase(bus, made.id, "goes on", status="in_progress")
        id_ = await arrange.add_task_of(db, waits, "pending")
        below = await add_task(db, initiative_id=made.id, parent_task_id=id_)

        await bus.call(UpdateTask(id=id_, phase_id=goes_on.id))
        assert set(await told_ready(outbox)) == {id_, below}
        assert set(await claim(bus, phase_id=goes_on.id)) == {id_, below}

        event = (await outbox.all("task.updated"))[0]
        assert event.data["moved"]

    async def test_moved_back(self, bus: Bus, db: AsyncConnection, outbox: Outbox) -> None:
        made = await arrange.an_initiative(bus)
        waits = await arrange.a_phase(bus, made.id, "waits")
        id_ = await add_task(db, initiative_id=made.id)

        await bus.call(UpdateTask(id=id_, phase_id=waits.id))

        assert await claim(bus) == []
        assert await told_ready(outbox) == []
        await bus.call(UpdateTask(id=id_, phase_id=None))
        assert await told_ready(outbox) == [id_]

    async def test_a_child_without_one_is_in_that_of_its_parent(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        phase = await arrange.a_lone_phase(bus, status="approved")
        parent = await arrange.add_task_of(db, phase, "pending")
        child = await bus.call(CreateTask(name="child", parent_task_id=parent))

        assert await claim(bus) == []
        await bus.call(StartPhase(id=phase.id))

        assert set(await told_ready(outbox)) == {parent, child.id}
        assert set(await claim(bus, phase_id=phase.id)) == {parent, child.id}
        context = await bus.call(GetTaskContext(id=child.id))
        assert context.phase is not None
        assert context.phase.id == phase.id

    @pytest.mark.parametrize("many", [False, True])
    async def test_a_new_task_is_told_by_its_creation(
        self, bus: Bus, outbox: Outbox, many: bool
    ) -> None:
        phase = await arrange.a_lone_phase(bus, status="completed")
        fields: Any = {"name": "more", "phase_id": phase.id}
        if many:
            made = (await bus.call(CreateManyTasks(items=[NewTaskItem(**fields)]))).items[0].id
        else:
            made = (await bus.call(CreateTask(**fields))).id

        assert await told_ready(outbox) == []
        assert await claim(bus) == [made]

    async def test_lists_and_counts_go_by_the_phase_that_a_task_is_in(self, bus: Bus) -> None:
        phase = await arrange.a_lone_phase(bus, status="in_progress")
        above = await bus.call(CreateTask(name="above", phase_id=phase.id))
        below = await bus.call(CreateTask(name="below", parent_task_id=above.id))

        page = await bus.call(ListTasks(phase_id=phase.id))
        assert {task.id for task in page.items} == {above.id, below.id}
        overview = await bus.call(GetInitiativeOverview(id=phase.initiative_id))
        assert overview.phases[0].tasks.pending == 2


class TestParents:
    async def test_what_a_parent_waits_for(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        first, parent = await add_claimed(db), await add_task(db)
        await depend(db, parent, first)
        child = await bus.call(CreateTask(name="child", parent_task_id=parent))
        lower = await bus.call(CreateTask(name="lower", parent_task_id=child.id))

        assert await claim(bus) == []
        assert (await bus.call(GetTaskQueue())).waiting == 3
        await bus.call(CompleteTask(id=first))

        assert set(await told_ready(outbox)) == {parent, child.id, lower.id}
        assert set(await claim(bus)) == {parent, child.id, lower.id}

    async def test_made_together(self, bus: Bus, db: AsyncConnection, outbox: Outbox) -> None:
        first = await add_claimed(db)
        items: Any = [
            {"ref": "lower", "name": "lower", "parent": "child"},
            {"ref": "child", "name": "child", "parent": "parent"},
            {"ref": "parent", "name": "parent", "depends_on": [str(first)]},
            {"ref": "free", "name": "free"},
        ]
        made = await bus.call(CreateManyTasks(items=[NewTaskItem(**item) for item in items]))
        *waiting, free = [item.id for item in made.items]

        assert await ready(bus) == {free}
        await bus.call(CompleteTask(id=first))

        assert set(await told_ready(outbox)) == set(waiting)

    async def test_blocked_and_tried_again(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        parent = await add_task(db)
        child = await add_task(db, parent_task_id=parent)
        lower = await add_task(db, parent_task_id=child)
        await bus.call(BlockTask(id=parent, reason="why"))

        assert await claim(bus) == []
        late = await bus.call(CreateTask(name="late", parent_task_id=lower))
        assert await claim(bus) == []
        await bus.call(RetryTask(id=parent))

        told = await told_ready(outbox)
        assert len(told) == 4
        assert set(told) == {parent, child, lower, late.id} == set(await claim(bus))

    async def test_a_late_result_of_a_blocked_one(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        parent = await add_task(db, status="blocked", blocked_reason="why", attempt=1)
        child = await add_task(db, parent_task_id=parent)
        with pytest.raises(StaleAttempt):
            await bus.call(CompleteTask(id=parent, attempt=1))

        await bus.call(AcceptLateResult(id=parent, attempt=1))

        assert await told_ready(outbox) == [child]

    async def test_one_in_progress_holds_nothing_back(self, bus: Bus, db: AsyncConnection) -> None:
        child = await add_task(db, parent_task_id=await add_claimed(db))

        assert await claim(bus) == [child]

    async def test_what_is_completed_is_not_held_back(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        parent = await add_task(db, status="blocked", blocked_reason="why")
        done = await add_task(db, parent_task_id=parent, status="completed")

        await bus.call(RetryTask(id=parent))

        assert await told_ready(outbox) == [parent]
        assert (await row(db, done)).version == 1
