"""What a phase or an initiative is follows from what it holds, whatever changes that."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.operation import Command
from contracts.planning.initiatives import (
    ApproveInitiative,
    ArchiveInitiative,
    GetInitiative,
    UnarchiveInitiative,
)
from contracts.planning.phases import (
    BlockPhase,
    CompletePhase,
    CreatePhase,
    DeletePhase,
    GetPhase,
    StartPhase,
    UnblockPhase,
)
from contracts.planning.tasks import (
    AcceptLateResult,
    BlockTask,
    CompleteTask,
    CreateManyTasks,
    CreateTask,
    DeleteTask,
    InitiativeClosed,
    NewTaskItem,
    RetryTask,
    StaleAttempt,
    UpdateTask,
)
from fleetbus.client import Bus
from tests.kit.outbox import Outbox
from tests.planning import arrange
from tests.planning.arrange import add_claimed, add_task

ROUNDS = 10
"""How often two calls are made at once; they do not meet every time."""


async def status(bus: Bus, *, phase: UUID | None = None, initiative: UUID | None = None) -> str:
    if phase is not None:
        return (await bus.call(GetPhase(id=phase))).status
    assert initiative is not None
    return (await bus.call(GetInitiative(id=initiative))).status


class TestThePhaseIsOver:
    async def test_the_last_open_task_is_deleted(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        phase = await arrange.a_lone_phase(bus, status="in_progress")
        a, b = [await arrange.add_task_of(db, phase) for _ in "ab"]
        await bus.call(CompleteTask(id=a))
        await bus.call(DeleteTask(id=b))

        assert await status(bus, phase=phase.id) == "pending_review"
        assert (await outbox.last("phase.pending_review")).data["previous_status"] == "in_progress"

    async def test_and_with_it_its_initiative(self, bus: Bus, db: AsyncConnection) -> None:
        initiative = await arrange.an_initiative(bus, execution_mode="yolo")
        phase = await arrange.a_phase(bus, initiative.id, status="in_progress")
        await arrange.add_task_of(db, phase, "completed")
        await bus.call(DeleteTask(id=await arrange.add_task_of(db, phase, "pending")))

        assert await status(bus, initiative=initiative.id) == "pending_review"

    async def test_it_goes_along_with_its_parent_in_another_phase(
        self, bus: Bus, db: AsyncConnection
    ) -> None:
        one, two = await arrange.two_phases(bus, status="in_progress")
        parent = await arrange.add_task_of(db, two)
        await arrange.add_task_of(db, one, "completed")
        await arrange.add_task_of(db, one, "pending", parent_task_id=parent)
        await arrange.add_task_of(db, two, "completed")

        await bus.call(DeleteTask(id=parent))

        assert [await status(bus, phase=each.id) for each in (one, two)] == ["pending_review"] * 2

    async def test_it_goes_along_with_another_phase(self, bus: Bus, db: AsyncConnection) -> None:
        one, two = await arrange.two_phases(bus, status="in_progress")
        parent = await arrange.add_task_of(db, two)
        await arrange.add_task_of(db, one, "completed")
        await arrange.add_task_of(db, one, "pending", parent_task_id=parent)

        await bus.call(DeletePhase(id=two.id))

        assert await status(bus, phase=one.id) == "pending_review"

    async def test_it_moves_out(self, bus: Bus, db: AsyncConnection) -> None:
        one, two = await arrange.two_phases(bus, status="in_progress")
        await arrange.add_task_of(db, one, "completed")
        moved = await arrange.add_task_of(db, one, "pending")

        await bus.call(UpdateTask(id=moved, phase_id=two.id))

        assert await status(bus, phase=one.id) == "pending_review"
        assert await status(bus, phase=two.id) == "in_progress"

    async def test_it_has_a_late_result(self, bus: Bus, db: AsyncConnection) -> None:
        phase = await arrange.a_lone_phase(bus, status="in_progress")
        id_ = await arrange.add_task_of(db, phase, "pending", attempt=1)
        with pytest.raises(StaleAttempt):
            await bus.call(CompleteTask(id=id_, attempt=1))

        await bus.call(AcceptLateResult(id=id_, attempt=1))

        assert await status(bus, phase=phase.id) == "pending_review"

    async def test_a_child_counts_for_the_phase_of_its_parent(
        self, bus: Bus, db: AsyncConnection
    ) -> None:
        phase = await arrange.a_lone_phase(bus, status="in_progress")
        top = await arrange.add_task_of(db, phase)
        below = await arrange.add_task_of(db, phase, phase_id=None, parent_task_id=top)
        await bus.call(CompleteTask(id=top))
        assert await status(bus, phase=phase.id) == "in_progress"

        await bus.call(CompleteTask(id=below))

        assert await status(bus, phase=phase.id) == "pending_review"

    @pytest.mark.parametrize("before", ["approved", "in_progress"])
    async def test_all_was_completed_while_it_was_blocked(
        self, bus: Bus, db: AsyncConnection, before: str
    ) -> None:
        phase = await arrange.a_lone_phase(bus, status=before)
        id_ = await arrange.add_task_of(db, phase)
        await bus.call(BlockPhase(id=phase.id, reason="x"))
        await bus.call(CompleteTask(id=id_))
        await bus.call(UnblockPhase(id=phase.id))
        if before == "approved":
            await bus.call(StartPhase(id=phase.id))

        assert await status(bus, phase=phase.id) == "pending_review"

    async def test_not_one_that_is_empty(self, bus: Bus, db: AsyncConnection) -> None:
        phase = await arrange.a_lone_phase(bus, status="approved")
        await bus.call(StartPhase(id=phase.id))
        await bus.call(DeleteTask(id=await arrange.add_task_of(db, phase, "pending")))

        assert await status(bus, phase=phase.id) == "in_progress"


class TestTheInitiativeIsOver:
    async def test_without_phases(self, bus: Bus, db: AsyncConnection, outbox: Outbox) -> None:
        initiative = await arrange.an_initiative(bus)
        tasks = [await add_claimed(db, initiative_id=initiative.id) for _ in range(2)]
        await bus.call(CompleteTask(id=tasks[0]))
        assert await status(bus, initiative=initiative.id) == "active"

        await bus.call(CompleteTask(id=tasks[1]))

        assert await status(bus, initiative=initiative.id) == "pending_review"
        assert (await outbox.types())[-1] == "initiative.pending_review"

    async def test_tasks_count_outside_of_phases_too(self, bus: Bus, db: AsyncConnection) -> None:
        phase = await arrange.a_lone_phase(bus, status="in_progress")
        outside = await add_claimed(db, initiative_id=phase.initiative_id)
        await bus.call(CompletePhase(id=phase.id))
        assert await status(bus, initiative=phase.initiative_id) == "active"

        await bus.call(CompleteTask(id=outside))

        assert await status(bus, initiative=phase.initiative_id) == "pending_review"

    async def test_tasks_count_in_a_phase_that_is_completed(
        self, bus: Bus, db: AsyncConnection
    ) -> None:
        phase = await arrange.a_lone_phase(bus, status="in_progress")
        left = await arrange.add_task_of(db, phase)
        await bus.call(CompletePhase(id=phase.id))
        assert await status(bus, initiative=phase.initiative_id) == "active"

        await bus.call(CompleteTask(id=left))

        assert await status(bus, initiative=phase.initiative_id) == "pending_review"

    async def test_its_last_open_phase_is_deleted(self, bus: Bus, db: AsyncConnection) -> None:
        one, two = await arrange.two_phases(bus, status="in_progress")
        await bus.call(CompletePhase(id=one.id))
        await bus.call(DeletePhase(id=two.id))

        assert await status(bus, initiative=one.initiative_id) == "pending_review"

    async def test_while_it_was_archived(self, bus: Bus, db: AsyncConnection) -> None:
        initiative = await arrange.an_initiative(bus)
        id_ = await add_claimed(db, initiative_id=initiative.id)
        await bus.call(ArchiveInitiative(id=initiative.id))
        await bus.call(CompleteTask(id=id_))
        assert await status(bus, initiative=initiative.id) == "archived"

        await bus.call(UnarchiveInitiative(id=initiative.id))

        assert await status(bus, initiative=initiative.id) == "pending_review"

    async def test_a_plan_that_is_brought_in_completed(self, bus: Bus) -> None:
        initiative = await arrange.an_initiative(bus)
        items = [
            NewTaskItem(name=name, initiative_id=initiative.id, status="completed") for name in "ab"
        ]
        await bus.call(CreateManyTasks(items=items))

        assert await status(bus, initiative=initiative.id) == "pending_review"


class TestWorkIsAdded:
    @pytest.mark.parametrize("mode", ["yolo", "review_per_phase"])
    async def test_a_task(self, bus: Bus, db: AsyncConnection, outbox: Outbox, mode: str) -> None:
        initiative = await arrange.an_initiative(bus, execution_mode=mode)
        phase = await arrange.a_phase(bus, initiative.id, status="in_progress")
        await bus.call(CompleteTask(id=await arrange.add_task_of(db, phase)))

        await bus.call(CreateTask(name="more", phase_id=phase.id))

        assert await status(bus, phase=phase.id) == "in_progress"
        assert await status(bus, initiative=initiative.id) == "active"
        before = "completed" if mode == "yolo" else "pending_review"
        assert (await outbox.last("phase.started")).data["previous_status"] == before
        reopened = "initiative.reopened" in await outbox.types()
        assert reopened == (mode == "yolo")

    async def test_below_a_task_of_a_phase_that_is_over(
        self, bus: Bus, db: AsyncConnection
    ) -> None:
        phase = await arrange.a_lone_phase(bus, status="in_progress")
        top = await arrange.add_task_of(db, phase)
        await bus.call(CompleteTask(id=top))

        await bus.call(CreateTask(name="more", parent_task_id=top))

        assert await status(bus, phase=phase.id) == "in_progress"

    async def test_many(self, bus: Bus, db: AsyncConnection) -> None:
        phase = await arrange.a_lone_phase(bus, status="in_progress")
        await bus.call(CompletePhase(id=phase.id))

        items = [NewTaskItem(name="t", phase_id=phase.id) for _ in "ab"]
        await bus.call(CreateManyTasks(items=items))

        assert await status(bus, phase=phase.id) == "in_progress"
        assert await status(bus, initiative=phase.initiative_id) == "active"

    async def test_one_that_is_completed_changes_nothing(self, bus: Bus) -> None:
        phase = await arrange.a_lone_phase(bus, status="in_progress")
        await bus.call(CompletePhase(id=phase.id))

        await bus.call(CreateTask(name="done", phase_id=phase.id, status="completed"))

        assert await status(bus, phase=phase.id) == "completed"
        assert await status(bus, initiative=phase.initiative_id) == "pending_review"

    async def test_one_moves_in(self, bus: Bus, db: AsyncConnection) -> None:
        one, two = await arrange.two_phases(bus, status="in_progress")
        await bus.call(CompletePhase(id=two.id))
        top = await arrange.add_task_of(db, one, "completed")
        await arrange.add_task_of(db, one, "pending", phase_id=None, parent_task_id=top)

        await bus.call(UpdateTask(id=top, phase_id=two.id))

        assert await status(bus, phase=two.id) == "in_progress"

    async def test_one_is_retried(self, bus: Bus, db: AsyncConnection) -> None:
        phase = await arrange.a_lone_phase(bus, status="in_progress")
        id_ = await arrange.add_task_of(db, phase, "pending")
        await bus.call(BlockTask(id=id_, reason="x"))
        await bus.call(CompletePhase(id=phase.id))

        await bus.call(RetryTask(id=id_))

        assert await status(bus, phase=phase.id) == "in_progress"

    @pytest.mark.parametrize("over", ["pending_review", "completed"])
    async def test_a_phase(self, bus: Bus, outbox: Outbox, over: str) -> None:
        phase = await arrange.a_lone_phase(bus, status="in_progress")
        await bus.call(CompletePhase(id=phase.id))
        if over == "completed":
            approve = ApproveInitiative(id=phase.initiative_id, strategy="push_branch")
            await bus.call(approve)

        await bus.call(CreatePhase(initiative_id=phase.initiative_id, name="more"))

        assert await status(bus, initiative=phase.initiative_id) == "active"
        data = (await outbox.last("initiative.reopened")).data
        assert (data["previous_status"], data["initiative"]["status"]) == (over, "active")

    async def test_an_archived_initiative_takes_none(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        initiative = await arrange.an_initiative(bus)
        phase = await arrange.a_phase(bus, initiative.id, status="in_progress")
        blocked = await arrange.add_task_of(db, phase, "blocked", blocked_reason="x")
        outside = await add_task(db, initiative_id=initiative.id)
        await bus.call(ArchiveInitiative(id=initiative.id))
        before = await outbox.types()

        commands: tuple[Command[Any], ...] = (
            CreateTask(name="t", initiative_id=initiative.id),
            CreateTask(name="t", phase_id=phase.id),
            CreateTask(name="t", parent_task_id=outside),
            CreateManyTasks(items=[NewTaskItem(name="t", phase_id=phase.id)]),
            UpdateTask(id=outside, phase_id=phase.id),
            RetryTask(id=blocked),
            CreatePhase(initiative_id=initiative.id, name="p"),
        )
        for command in commands:
            with pytest.raises(InitiativeClosed) as refused:
                await bus.call(command)
            assert refused.value.id == initiative.id
        assert await outbox.types() == before
