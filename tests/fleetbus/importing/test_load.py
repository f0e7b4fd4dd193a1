from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from contracts.planning.initiatives import FindInitiative, InitiativeNotFound
from contracts.planning.phases import ListDispatchablePhases, Phase
from contracts.planning.tasks import ClaimTasks, CompleteTask, GetTaskQueue, Task
from fleetbus.client import Bus
from fleetbus.importing.load import load_plan
from fleetbus.importing.plan import Dependency, Plan, PlannedPhase, PlannedTask
from fleetbus.importing.present import read_present
from fleetbus.importing.report import Difference, LoadReport
from tests.kit.outbox import Outbox


def planned(
    *tasks: PlannedTask,
    phases: tuple[PlannedPhase, ...] = (),
    waits: tuple[tuple[str, str], ...] = (),
    phase_waits: tuple[tuple[str, str], ...] = (),
) -> Plan:
    return Plan(
        name="small",
        records_read=len(tasks) + len(phases),
        phases=phases,
        tasks=tasks,
        dependencies=tuple(Dependency(*edge) for edge in waits),
        phase_dependencies=tuple(Dependency(*edge) for edge in phase_waits),
        edges=(),
        skipped=(),
        problems=(),
        notes=(),
    )


def task(ref: str, **fields: Any) -> PlannedTask:
    return PlannedTask(ref, f"Task {ref}", **fields)


def counts(report: LoadReport) -> dict[str, tuple[int, int, int, int]]:
    """What was created, updated, unchanged and refused, where there is anything."""
    return {name: tuple(numbers) for name, *numbers in report.rows() if any(numbers)}  # type: ignore[misc]  # four


async def tasks_of(bus: Bus) -> dict[str, Task]:
    return dict((await read_present(bus, "plan:small")).tasks)


async def phases_of(bus: Bus) -> dict[str, Phase]:
    return dict((await read_present(bus, "plan:small")).phases)


async def finish(bus: Bus, ref: str) -> None:
    """Let the fleet do one task."""
    claimed = await bus.call(ClaimTasks(agent_id="agent", limit=50))
    [mine] = [claim.task for claim in claimed.tasks if claim.task.external_ref == ref]
    await bus.call(CompleteTask(id=mine.id, attempt=mine.attempt, summary="by the fleet"))


class TestFirstImport:
    async def test_makes_everything(self, bus: Bus, outbox: Outbox) -> None:
        plan = planned(
            task("a", phase_ref="p", description="Why", priority="high"),
            task("b", phase_ref="p", parent_ref="a"),
            phases=(PlannedPhase("p", "Phase", "First\n\nSecond"),),
            waits=(("b", "a"),),
        )
        report = await load_plan(bus, plan, source="beads", execution_mode="yolo")

        assert counts(report) == {
            "initiative": (1, 0, 0, 0),
            "phases": (1, 0, 0, 0),
            "tasks": (2, 0, 0, 0),
            "dependencies": (1, 0, 0, 0),
        }
        assert (report.external_ref, report.records) == ("beads:small", plan.records_read)
        present = await read_present(bus, "beads:small")
        assert present.initiative is not None
        assert present.initiative.execution_mode == "yolo"
        assert (present.phases["p"].status, present.phases["p"].content) == (
            "in_progress",
            plan.phases[0].content,
        )
        a, b = present.tasks["a"], present.tasks["b"]
        assert (a.description, a.priority, a.phase_id) == ("Why", "high", present.phases["p"].id)
        assert (b.parent_task_id, b.position) == (a.id, 1)
        assert present.dependencies == {Dependency("b", "a")}
        told = Counter(await outbox.types())
        assert told == {"initiative.created": 1, "phase.created": 1, "task.created": 2}

    async def test_states_are_those_of_the_plan(self, bus: Bus) -> None:
        plan = planned(
            task("done", status="completed", summary="It was."),
            task("stuck", status="blocked", blocked_reason="No key"),
            phases=(
                PlannedPhase("over", "Over", status="completed"),
                PlannedPhase("held", "Held", status="blocked", blocked_reason="Nobody knows"),
            ),
        )
        await load_plan(bus, plan)
        tasks, phases = await tasks_of(bus), await phases_of(bus)
        assert (tasks["done"].status, tasks["done"].summary) == ("completed", "It was.")
        assert (tasks["stuck"].status, tasks["stuck"].blocked_reason) == ("blocked", "No key")
        assert phases["over"].status == "completed"
        assert (phases["held"].status, phases["held"].blocked_reason) == ("blocked", "Nobody knows")

    async def test_a_phase_that_waits_is_approved_and_not_begun(self, bus: Bus) -> None:
        plan = planned(
            task("a", phase_ref="one"),
            task("b", phase_ref="two"),
            phases=(
                PlannedPhase("zero", "Zero", status="completed"),
                PlannedPhase("one", "One"),
                PlannedPhase("two", "Two"),
            ),
            phase_waits=(("one", "zero"), ("two", "one")),
        )
        report = await load_plan(bus, plan)
        phases = await phases_of(bus)
        assert {ref: phase.status for ref, phase in phases.items()} == {
            "zero": "completed",
            "one": "in_progress",
            "two": "approved",
        }
        assert counts(report)["phase dependencies"] == (2, 0, 0, 0)
        assert report.initiative_id is not None
        dispatchable = ListDispatchablePhases(initiative_id=report.initiative_id)
        assert (await bus.call(dispatchable)).items == []
        assert (await load_plan(bus, plan)).unchanged

    async def test_what_is_below_a_task_may_wait_for_it(self, bus: Bus) -> None:
        plan = planned(task("epic"), task("part", parent_ref="epic"), waits=(("part", "epic"),))
        assert counts(await load_plan(bus, plan))["dependencies"] == (1, 0, 0, 0)
        present = await read_present(bus, "plan:small")
        assert present.tasks["part"].parent_task_id == present.tasks["epic"].id
        assert present.dependencies == {Dependency("part", "epic")}

    async def test_a_task_may_wait_for_very_many(self, bus: Bus) -> None:
        refs = [f"t{number}" for number in range(250)]
        plan = planned(
            *(task(ref) for ref in refs), task("last"), waits=tuple(("last", ref) for ref in refs)
        )
        assert counts(await load_plan(bus, plan))["dependencies"] == (250, 0, 0, 0)
        assert (await read_present(bus, "plan:small")).dependencies == set(plan.dependencies)
        queue = await bus.call(GetTaskQueue())
        assert (queue.ready, queue.waiting) == (250, 1)

    async def test_progress_is_told_to_the_end(self, bus: Bus) -> None:
        told: list[tuple[int, int, str]] = []
        plan = planned(
            task("a", phase_ref="p"),
            task("b"),
            phases=(PlannedPhase("p", "Phase"),),
            waits=(("b", "a"),),
        )
        await load_plan(bus, plan, progress=lambda *step: told.append(step))
        assert told == [(1, 4, "phases"), (4, 4, "tasks")]


class TestDryRun:
    async def test_writes_nothing(self, bus: Bus, outbox: Outbox) -> None:
        report = await load_plan(bus, planned(task("a")), dry_run=True)
        assert counts(report) == {"initiative": (1, 0, 0, 0), "tasks": (1, 0, 0, 0)}
        assert (report.dry_run, report.initiative_id) == (True, None)
        assert await outbox.all() == []
        with pytest.raises(InitiativeNotFound):
            await bus.call(FindInitiative(external_ref="plan:small"))

    async def test_says_what_the_import_then_does(self, bus: Bus, outbox: Outbox) -> None:
        await load_plan(bus, planned(task("a"), task("b")))
        before = await outbox.all()
        plan = planned(task("a", priority="low"), task("b"), task("c"), waits=(("b", "a"),))
        dry = await load_plan(bus, plan, dry_run=True)
        assert await outbox.all() == before
        assert replace(dry, dry_run=False) == await load_plan(bus, plan)


class TestSecondImport:
    async def test_changes_what_was_changed(self, bus: Bus, outbox: Outbox) -> None:
        phases = (PlannedPhase("p", "Phase"), PlannedPhase("q", "Other"))
        plan = planned(task("a", phase_ref="p"), task("b", phase_ref="p"), phases=phases)
        await load_plan(bus, plan)
        before = await outbox.count()
        changed = planned(
            replace(task("a", phase_ref="q", description="New"), name="Renamed"),
            task("b"),
            phases=(PlannedPhase("p", "Renamed too", "With words"), phases[1]),
        )
        report = await load_plan(bus, changed)

        assert counts(report) == {
            "initiative": (0, 0, 1, 0),
            "phases": (0, 1, 1, 0),
            "tasks": (0, 2, 0, 0),
        }
        told = Counter(row.type for row in (await outbox.all())[before:])
        assert told == {"phase.updated": 1, "task.updated": 2}
        present = await read_present(bus, "plan:small")
        assert (present.tasks["a"].name, present.tasks["a"].description) == ("Renamed", "New")
        assert present.tasks["a"].phase_id == present.phases["q"].id
        assert present.tasks["b"].phase_id is None
        assert present.phases["p"].name == "Renamed too"
        assert (await load_plan(bus, changed)).unchanged

    async def test_adds_what_is_new_between_what_is_there(self, bus: Bus, outbox: Outbox) -> None:
        await load_plan(bus, planned(task("a"), task("b")))
        before = await outbox.count()
        plan = planned(
            task("new"), task("a"), task("b"), task("child", parent_ref="a"),
            waits=(("a", "new"), ("child", "b"), ("b", "new")),
        )  # fmt: skip
        report = await load_plan(bus, plan)
        assert counts(report) == {
            "initiative": (0, 0, 1, 0),
            "tasks": (2, 0, 2, 0),
            "dependencies": (3, 0, 0, 0),
        }
        told = Counter(row.type for row in (await outbox.all())[before:])
        assert told == {"task.created": 2, "task.dependency_added": 2}
        assert (await load_plan(bus, plan)).unchanged

    async def test_what_is_no_longer_in_the_plan_stays(self, bus: Bus, outbox: Outbox) -> None:
        await load_plan(bus, planned(task("a"), task("b"), task("c"), waits=(("b", "a"),)))
        before = await outbox.all()
        report = await load_plan(bus, planned(task("a"), task("b")))
        assert (report.gone_tasks, report.gone_dependencies, report.unchanged) == (1, 1, True)
        assert report.gone == (
            Difference("c", "a task that is no longer in the plan"),
            Difference("b", "waits here for a, and no longer in the plan"),
        )
        assert await outbox.all() == before

    async def test_the_fleet_decides_on_how_far_things_are(self, bus: Bus, outbox: Outbox) -> None:
        plan = planned(task("a"), task("b"))
        await load_plan(bus, plan)
        await finish(bus, "a")
        before = await outbox.all()
        report = await load_plan(bus, plan)
        assert (report.unchanged, report.differences) == (True, ())
        assert await outbox.all() == before
        tasks = await tasks_of(bus)
        assert (tasks["a"].status, tasks["b"].status) == ("completed", "in_progress")

    async def test_names_where_the_plan_knows_more(self, bus: Bus, outbox: Outbox) -> None:
        await load_plan(
            bus, planned(task("a"), task("b"), task("c", status="blocked", blocked_reason="Why"))
        )
        before = await outbox.all()
        plan = planned(
            task("a", status="completed"),
            task("b", status="blocked", blocked_reason="Why"),
            task("c"),
        )
        report = await load_plan(bus, plan)
        assert report.differences == (
            Difference("a", "completed in the plan, pending here"),
            Difference("b", "blocked in the plan, pending here"),
            Difference("c", "pending in the plan, blocked here"),
        )
        assert report.unchanged
        assert await outbox.all() == before

    async def test_what_has_begun_cannot_come_to_wait(self, bus: Bus) -> None:
        await load_plan(bus, planned(task("a"), task("b")))
        await finish(bus, "a")
        report = await load_plan(bus, planned(task("a"), task("b"), waits=(("a", "b"),)))
        assert counts(report)["dependencies"] == (0, 0, 0, 1)
        assert report.differences == (
            Difference("a", "is completed and cannot come to wait for b"),
        )

    async def test_new_tasks_in_a_phase_that_is_over_are_named(self, bus: Bus) -> None:
        phases = (PlannedPhase("p", "Phase"),)
        await load_plan(bus, planned(task("a", phase_ref="p"), phases=phases))
        await finish(bus, "a")
        plan = planned(task("a", phase_ref="p"), task("b", phase_ref="p"), phases=phases)
        report = await load_plan(bus, plan)
        assert report.differences == (
            Difference("p", "pending_review here, so that new tasks in it cannot begin: 1"),
        )
