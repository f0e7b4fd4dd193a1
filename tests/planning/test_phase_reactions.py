"""What follows in the same transaction from tasks and phases that are completed."""

import asyncio

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.planning.initiatives import ArchiveInitiative, GetInitiative
from contracts.planning.phases import (
    AddPhaseDependency,
    ApprovePhase,
    BlockPhase,
    CompletePhase,
    GetPhase,
    ListPhases,
    RemovePhaseDependency,
    UnblockPhase,
)
from contracts.planning.tasks import CompleteTask
from fleetbus.client import Bus
from tests.kit.outbox import Outbox
from tests.planning import arrange

ROUNDS = 10
"""How often two calls are made at once; they do not meet every time."""


class TestFinishPhases:
    @pytest.mark.parametrize(
        ("mode", "status", "event"),
        [
            ("yolo", "completed", "phase.completed"),
            ("review_per_phase", "pending_review", "phase.pending_review"),
        ],
    )
    async def test_with_the_last_task(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox, mode: str, status: str, event: str
    ) -> None:
        initiative = await arrange.an_initiative(bus, execution_mode=mode)
        phase = await arrange.a_phase(bus, initiative.id, status="in_progress")
        await arrange.a_phase(bus, initiative.id, "later")
        tasks = [await arrange.add_task_of(db, phase) for _ in range(2)]

        await bus.call(CompleteTask(id=tasks[0]))
        assert (await bus.call(GetPhase(id=phase.id))).status == "in_progress"
        await bus.call(CompleteTask(id=tasks[1]))

        finished = await bus.call(GetPhase(id=phase.id))
        assert (finished.status, finished.version) == (status, 2)
        row = await outbox.last()
        assert (row.type, row.cause) == (event, "reaction:finish_phases")
        assert row.data["previous_status"] == "in_progress"

    async def test_a_blocked_task_keeps_it_open(self, bus: Bus, db: AsyncConnection) -> None:
        initiative = await arrange.an_initiative(bus)
        phase = await arrange.a_phase(bus, initiative.id, status="in_progress")
        await arrange.add_task_of(db, phase, "blocked")
        await bus.call(CompleteTask(id=await arrange.add_task_of(db, phase)))
        assert (await bus.call(GetPhase(id=phase.id))).status == "in_progress"

    async def test_only_a_phase_in_progress(self, bus: Bus, db: AsyncConnection) -> None:
        initiative = await arrange.an_initiative(bus)
        phase = await arrange.a_phase(bus, initiative.id, status="approved")
        await bus.call(CompleteTask(id=await arrange.add_task_of(db, phase)))
        assert await bus.call(GetPhase(id=phase.id)) == phase

    @pytest.mark.parametrize("mode", ["yolo", "review_per_phase"])
    async def test_the_last_two_tasks_at_once(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox, mode: str
    ) -> None:
        initiative = await arrange.an_initiative(bus, execution_mode=mode)
        phases = []
        for n in range(ROUNDS):
            phase = await arrange.a_phase(bus, initiative.id, f"phase {n}", status="in_progress")
            tasks = [await arrange.add_task_of(db, phase) for _ in range(2)]
            await asyncio.gather(*(bus.call(CompleteTask(id=id_)) for id_ in tasks))
            phases.append(phase)

        done = "completed" if mode == "yolo" else "pending_review"
        page = await bus.call(ListPhases(initiative_id=initiative.id))
        assert {phase.status for phase in page.items} == {done}
        assert (await outbox.types()).count(f"phase.{done}") == len(phases)


class TestFinishInitiatives:
    async def test_with_the_last_phase(self, bus: Bus, db: AsyncConnection, outbox: Outbox) -> None:
        initiative = await arrange.an_initiative(bus, execution_mode="yolo")
        phases = [
            await arrange.a_phase(bus, initiative.id, f"{n}", status="in_progress")
            for n in range(2)
        ]
        await bus.call(CompletePhase(id=phases[0].id))
        assert (await bus.call(GetInitiative(id=initiative.id))).status == "active"

        await bus.call(CompleteTask(id=await arrange.add_task_of(db, phases[1])))

        finished = await bus.call(GetInitiative(id=initiative.id))
        assert (finished.status, finished.version) == ("pending_review", 2)
        assert (await outbox.types())[-3:] == [
            "task.completed",
            "phase.completed",
            "initiative.pending_review",
        ]

    async def test_the_last_two_phases_at_once(self, bus: Bus, outbox: Outbox) -> None:
        for _ in range(ROUNDS):
            initiative = await arrange.an_initiative(bus)
            phases = [await arrange.a_phase(bus, initiative.id, status="in_progress") for _ in "ab"]
            await asyncio.gather(*(bus.call(CompletePhase(id=phase.id)) for phase in phases))
            finished = await bus.call(GetInitiative(id=initiative.id))
            assert finished.status == "pending_review"
        assert (await outbox.types()).count("initiative.pending_review") == ROUNDS

    async def test_an_archived_one_stays_archived(self, bus: Bus) -> None:
        initiative = await arrange.an_initiative(bus)
        phase = await arrange.a_phase(bus, initiative.id, status="in_progress")
        archived = await bus.call(ArchiveInitiative(id=initiative.id))
        await bus.call(CompletePhase(id=phase.id))
        assert await bus.call(GetInitiative(id=initiative.id)) == archived


class TestTellDispatchablePhases:
    async def test_once_the_last_dependency_is_completed(self, bus: Bus, outbox: Outbox) -> None:
        initiative = await arrange.an_initiative(bus)
        one, two = [
            await arrange.a_phase(bus, initiative.id, name, status="in_progress")
            for name in ("one", "two")
        ]
        approved = await arrange.a_phase(bus, initiative.id, "approved", status="approved")
        pending = await arrange.a_phase(bus, initiative.id, "pending")
        for dependent in (approved, pending):
            for needed in (one, two):
                add = AddPhaseDependency(id=dependent.id, depends_on_phase_id=needed.id)
                await bus.call(add)

        await bus.call(CompletePhase(id=one.id))
        assert "phase.dispatchable" not in await outbox.types()
        await bus.call(CompletePhase(id=two.id))

        rows = await outbox.all("phase.dispatchable")
        assert [row.entity_id for row in rows] == [str(approved.id)]

    async def test_the_last_two_dependencies_at_once(self, bus: Bus, outbox: Outbox) -> None:
        initiative = await arrange.an_initiative(bus)
        for _ in range(ROUNDS):
            dependent = await arrange.a_phase(bus, initiative.id, status="approved")
            needed = [await arrange.a_phase(bus, initiative.id, status="in_progress") for _ in "ab"]
            for phase in needed:
                add = AddPhaseDependency(id=dependent.id, depends_on_phase_id=phase.id)
                await bus.call(add)
            await asyncio.gather(*(bus.call(CompletePhase(id=phase.id)) for phase in needed))
        assert (await outbox.types()).count("phase.dispatchable") == ROUNDS

    async def test_when_it_is_approved_or_unblocked(self, bus: Bus, outbox: Outbox) -> None:
        one, two = await arrange.two_phases(bus)
        await arrange.depend_on_phase(bus, two, one)
        await bus.call(ApprovePhase(id=two.id))
        assert "phase.dispatchable" not in await outbox.types()

        await bus.call(ApprovePhase(id=one.id))
        await bus.call(BlockPhase(id=one.id, reason="x"))
        await bus.call(UnblockPhase(id=one.id))

        assert await outbox.ids("phase.dispatchable") == [str(one.id)] * 2

    async def test_once_it_waits_for_nothing(self, bus: Bus, outbox: Outbox) -> None:
        one, two = await arrange.two_phases(bus, status="approved")
        await arrange.depend_on_phase(bus, two, one)

        await bus.call(RemovePhaseDependency(id=two.id, depends_on_phase_id=one.id))

        assert await outbox.ids("phase.dispatchable") == [str(two.id)]

    async def test_not_again_when_what_it_needed_was_completed(
        self, bus: Bus, outbox: Outbox
    ) -> None:
        initiative = await arrange.an_initiative(bus)
        one = await arrange.a_phase(bus, initiative.id, status="in_progress")
        two = await arrange.a_phase(bus, initiative.id, status="approved")
        await arrange.depend_on_phase(bus, two, one)
        await bus.call(CompletePhase(id=one.id))

        await bus.call(RemovePhaseDependency(id=two.id, depends_on_phase_id=one.id))

        assert await outbox.ids("phase.dispatchable") == [str(two.id)]

    async def test_completed_and_approved_at_once(self, bus: Bus, outbox: Outbox) -> None:
        initiative = await arrange.an_initiative(bus)
        for _ in range(ROUNDS):
            needed = await arrange.a_phase(bus, initiative.id, status="in_progress")
            dependent = await arrange.a_phase(bus, initiative.id)
            await arrange.depend_on_phase(bus, dependent, needed)
            await asyncio.gather(
                bus.call(CompletePhase(id=needed.id)), bus.call(ApprovePhase(id=dependent.id))
            )
        assert await outbox.count("phase.dispatchable") == ROUNDS
