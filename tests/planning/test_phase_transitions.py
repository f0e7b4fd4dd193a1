import asyncio

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.errors import (
    InvalidTransition,
)
from contracts.planning.phases import (
    ApprovePhase,
    ApprovePhaseReview,
    BlockPhase,
    CompletePhase,
    DependenciesOpen,
    Phase,
    RequestPhaseChanges,
    StartPhase,
    UnblockPhase,
)
from contracts.planning.tasks import ListTasks
from fleetbus.client import Bus
from tests.kit.outbox import Outbox
from tests.planning import arrange
from tests.planning.arrange import a_lone_phase, depend_on_phase, two_phases


class TestApprovePhase:
    async def test_approved(self, bus: Bus, outbox: Outbox) -> None:
        made = await a_lone_phase(bus)
        approved = await bus.call(ApprovePhase(id=made.id))
        assert (approved.status, approved.version) == ("approved", 2)
        assert (await outbox.last("phase.approved")).data["previous_status"] == "pending"
        assert (await outbox.types())[-1] == "phase.dispatchable"

    async def test_not_pending(self, bus: Bus) -> None:
        made = await a_lone_phase(bus, status="completed")
        with pytest.raises(InvalidTransition) as refused:
            await bus.call(ApprovePhase(id=made.id))
        assert (refused.value.from_, refused.value.expected) == ("completed", "pending")


class TestStartPhase:
    async def test_started(self, bus: Bus, outbox: Outbox) -> None:
        made = await a_lone_phase(bus, status="approved")
        started = await bus.call(StartPhase(id=made.id))
        assert (started.status, started.version) == ("in_progress", 2)
        assert (await outbox.types())[-1] == "phase.started"

    async def test_dependencies_open(self, bus: Bus) -> None:
        one, two = await two_phases(bus, status="approved")
        await depend_on_phase(bus, two, one)
        with pytest.raises(DependenciesOpen) as refused:
            await bus.call(StartPhase(id=two.id))
        assert (refused.value.id, refused.value.open) == (two.id, [one.id])

    async def test_dependencies_completed(self, bus: Bus) -> None:
        one, two = await two_phases(bus, status="approved")
        await depend_on_phase(bus, two, one)
        await bus.call(StartPhase(id=one.id))
        await bus.call(CompletePhase(id=one.id))
        assert (await bus.call(StartPhase(id=two.id))).status == "in_progress"

    async def test_not_approved(self, bus: Bus) -> None:
        with pytest.raises(InvalidTransition):
            await bus.call(StartPhase(id=(await a_lone_phase(bus)).id))


class TestBlockPhase:
    async def test_the_status_is_remembered(self, bus: Bus, outbox: Outbox) -> None:
        made = await a_lone_phase(bus, status="in_progress")
        blocked = await bus.call(BlockPhase(id=made.id, reason="no licence"))
        assert (blocked.status, blocked.status_before) == ("blocked", "in_progress")
        assert blocked.blocked_reason == "no licence"
        assert (await outbox.last("phase.blocked")).data["previous_status"] == "in_progress"

    async def test_completed(self, bus: Bus) -> None:
        made = await a_lone_phase(bus, status="completed")
        with pytest.raises(InvalidTransition):
            await bus.call(BlockPhase(id=made.id, reason="x"))


class TestUnblockPhase:
    async def test_back_to_where_it_was(self, bus: Bus, outbox: Outbox) -> None:
        made = await a_lone_phase(bus, status="approved")
        await bus.call(BlockPhase(id=made.id, reason="x"))
        back = await bus.call(UnblockPhase(id=made.id))
        assert (back.status, back.status_before, back.blocked_reason) == ("approved", None, None)
        assert back.version == 3
        assert (await outbox.types())[-2:] == ["phase.unblocked", "phase.dispatchable"]

    async def test_not_blocked(self, bus: Bus) -> None:
        with pytest.raises(InvalidTransition):
            await bus.call(UnblockPhase(id=(await a_lone_phase(bus)).id))


class TestCompletePhase:
    async def test_completed(self, bus: Bus, outbox: Outbox) -> None:
        one, _ = await two_phases(bus, status="in_progress")
        completed = await bus.call(CompletePhase(id=one.id))
        assert (completed.status, completed.version) == ("completed", 2)
        assert (await outbox.types())[-1] == "phase.completed"

    async def test_not_in_progress(self, bus: Bus) -> None:
        with pytest.raises(InvalidTransition):
            await bus.call(CompletePhase(id=(await a_lone_phase(bus)).id))


class TestApprovePhaseReview:
    async def test_completed(self, bus: Bus, db: AsyncConnection, outbox: Outbox) -> None:
        one, _ = await two_phases(bus)
        await arrange.set_status(db, one, "pending_review")
        completed = await bus.call(ApprovePhaseReview(id=one.id, merge_base="5f2c1e9"))
        assert (completed.status, completed.merge_base) == ("completed", "5f2c1e9")
        assert (await outbox.types())[-1] == "phase.completed"

    async def test_a_known_merge_base_stays(self, bus: Bus, db: AsyncConnection) -> None:
        one = await a_lone_phase(bus, merge_base="5f2c1e9")
        await arrange.set_status(db, one, "pending_review")
        assert (await bus.call(ApprovePhaseReview(id=one.id))).merge_base == "5f2c1e9"

    async def test_not_pending_review(self, bus: Bus) -> None:
        with pytest.raises(InvalidTransition):
            await bus.call(ApprovePhaseReview(id=(await a_lone_phase(bus)).id))


class TestRequestPhaseChanges:
    async def reviewed(self, bus: Bus, db: AsyncConnection) -> Phase:
        made = await a_lone_phase(bus)
        await arrange.set_status(db, made, "pending_review")
        return made

    async def test_in_progress_with_a_review_task(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        made = await self.reviewed(bus, db)
        back = await bus.call(RequestPhaseChanges(id=made.id, summary="A test is missing."))
        assert (back.status, back.version) == ("in_progress", 2)
        tasks = (await bus.call(ListTasks(phase_id=made.id))).items
        assert [(task.name, task.category, task.description) for task in tasks] == [
            ("Address review: Design", "review", "A test is missing.")
        ]
        assert (await outbox.types())[-2:] == ["phase.changes_requested", "task.created"]
        data = (await outbox.last("phase.changes_requested")).data
        assert (data["summary"], data["previous_status"]) == (
            "A test is missing.",
            "pending_review",
        )

    @pytest.mark.parametrize("status", ["pending", "in_progress"])
    async def test_an_open_review_task_takes_it_over(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox, status: str
    ) -> None:
        made = await self.reviewed(bus, db)
        known = await arrange.add_task_of(db, made, status, category="review", description="old")
        await bus.call(RequestPhaseChanges(id=made.id, summary="new"))
        tasks = (await bus.call(ListTasks(phase_id=made.id))).items
        assert [(task.id, task.description, task.version) for task in tasks] == [(known, "new", 2)]
        ready = ["task.ready"] if status == "pending" else []
        assert (await outbox.types())[-2:] == ["phase.changes_requested", "task.updated", *ready][
            -2:
        ]

    async def test_a_completed_review_task_stays(self, bus: Bus, db: AsyncConnection) -> None:
        made = await self.reviewed(bus, db)
        await arrange.add_task_of(db, made, "completed", category="review")
        await bus.call(RequestPhaseChanges(id=made.id, summary="more"))
        assert len((await bus.call(ListTasks(phase_id=made.id))).items) == 2

    async def test_two_at_once(self, bus: Bus, db: AsyncConnection) -> None:
        made = await self.reviewed(bus, db)
        calls = [bus.call(RequestPhaseChanges(id=made.id, summary=text)) for text in ("a", "b")]
        replies = await asyncio.gather(*calls, return_exceptions=True)
        assert sorted(type(reply).__name__ for reply in replies) == ["InvalidTransition", "Phase"]
        assert len((await bus.call(ListTasks(phase_id=made.id))).items) == 1

    async def test_the_longest_name(self, bus: Bus, db: AsyncConnection) -> None:
        made = await a_lone_phase(bus, "x" * 500)
        await arrange.set_status(db, made, "pending_review")
        await bus.call(RequestPhaseChanges(id=made.id, summary="shorten"))
        tasks = (await bus.call(ListTasks(phase_id=made.id))).items
        assert tasks[0].name == "Address review: " + "x" * 484

    async def test_not_pending_review(self, bus: Bus) -> None:
        with pytest.raises(InvalidTransition):
            await bus.call(RequestPhaseChanges(id=(await a_lone_phase(bus)).id, summary="x"))
