"""Relations that would close a cycle with what is here are left out with their path."""

from contracts.planning.tasks import GetTaskQueue
from fleetbus.client import Bus
from fleetbus.importing.load import load_plan
from fleetbus.importing.plan import Dependency, PlannedPhase
from fleetbus.importing.present import read_present
from fleetbus.importing.report import LoadReport
from tests.fleetbus.importing.test_load import counts, planned, task


def left_out(report: LoadReport) -> list[tuple[str, str]]:
    return [(ref, text) for sort, ref, text in report.remarks() if sort == "left out"]


async def test_a_relation_that_was_reversed(bus: Bus) -> None:
    await load_plan(bus, planned(task("a"), task("b"), waits=(("b", "a"),)))
    plan = planned(task("a", priority="high"), task("b"), task("c"), waits=(("a", "b"),))
    report = await load_plan(bus, plan)
    assert counts(report)["tasks"] == (1, 1, 1, 0)
    assert "dependencies" not in counts(report)
    assert report.differences == ()
    [(ref, text)] = left_out(report)
    assert ref == "a"
    assert text.startswith("dependencies: a cannot wait for b: with what is here already it would")
    assert text.endswith(("the cycle a → b → a", "the cycle b → a → b"))
    assert [(one.ref, one.text) for one in report.gone] == [
        ("b", "waits here for a, and no longer in the plan")
    ]
    again = await load_plan(bus, plan)
    assert (again.unchanged, left_out(again)) == (True, left_out(report))


async def test_a_relation_of_phases_that_was_reversed(bus: Bus) -> None:
    phases = (PlannedPhase("p", "P"), PlannedPhase("q", "Q"))
    tasks = (task("a", phase_ref="p"), task("b", phase_ref="q"))
    await load_plan(bus, planned(*tasks, phases=phases, phase_waits=(("q", "p"),)))
    report = await load_plan(bus, planned(*tasks, phases=phases, phase_waits=(("p", "q"),)))
    assert "phase dependencies" not in counts(report)
    [(ref, text)] = left_out(report)
    assert (ref, "p cannot wait for q" in text, "→" in text) == ("p", True, True)


async def test_a_new_task_that_waits_for_what_waits_for_its_phase(bus: Bus) -> None:
    phases = (PlannedPhase("p", "P"), PlannedPhase("q", "Q"))
    tasks = (task("a", phase_ref="p"), task("b", phase_ref="q"))
    await load_plan(bus, planned(*tasks, phases=phases, phase_waits=(("q", "p"),)))
    new = (task("c", phase_ref="p"), task("d"))
    plan = planned(*tasks, *new, phases=phases, waits=(("c", "b"), ("c", "d")))
    report = await load_plan(bus, plan)
    assert counts(report)["tasks"] == (2, 0, 2, 0)
    assert counts(report)["dependencies"] == (1, 0, 0, 0)
    assert [ref for ref, _ in left_out(report)] == ["c"]
    assert (await read_present(bus, "plan:small")).dependencies == {Dependency("c", "d")}


async def test_a_task_cannot_wait_for_what_is_below_it(bus: Bus) -> None:
    plan = planned(task("epic"), task("part", parent_ref="epic"), waits=(("epic", "part"),))
    report = await load_plan(bus, plan)
    assert [ref for ref, _ in left_out(report)] == ["epic"]
    assert (await bus.call(GetTaskQueue())).ready == 2
