"""Beads plans that are imported again: what is there keeps its kind and is never doubled."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.planning.initiatives import DeleteInitiative
from contracts.planning.tasks import ClaimTasks, CompleteTask, GetTaskQueue
from fleetbus.client import Bus
from fleetbus.importing.beads import read_beads
from fleetbus.importing.load import load_plan
from fleetbus.importing.plan import Dependency
from fleetbus.importing.present import Present, read_present
from fleetbus.importing.report import LoadReport
from tests.fleetbus.importing.test_beads import epic, issue

Records = list[dict[str, object]]


async def bring(bus: Bus, records: Records) -> LoadReport:
    plan = read_beads(map(json.dumps, records), name="again")
    return await load_plan(bus, plan, source="beads", execution_mode="yolo")


async def there(bus: Bus) -> Present:
    return await read_present(bus, "beads:again")


async def work_off(bus: Bus) -> list[str]:
    """Let the fleet do all that becomes ready; answers with the refs in their order."""
    done: list[str] = []
    while claimed := (await bus.call(ClaimTasks(agent_id="agent", limit=50))).tasks:
        for claim in claimed:
            done.append(claim.task.external_ref or "")
            await bus.call(
                CompleteTask(id=claim.task.id, attempt=claim.task.attempt, summary="done")
            )
    return done


CHILDLESS = [epic("e-1"), issue("e-2", "e-1")]
WITH_A_CHILD = [*CHILDLESS, issue("e-1.1")]

AT_THE_TOP = [epic("e-1"), issue("e-1.1"), issue("e-2", "e-1"), issue("y")]
BELOW = [epic("x", "y"), epic("e-1", parent="x"), *AT_THE_TOP[1:]]


class TestATaskStaysATask:
    async def test_its_new_children_are_child_tasks(self, bus: Bus) -> None:
        await bring(bus, CHILDLESS)
        before = await there(bus)
        report = await bring(bus, WITH_A_CHILD)
        after = await there(bus)
        assert after.phases == {}
        assert after.tasks["e-1"].id == before.tasks["e-1"].id
        assert after.tasks["e-1.1"].parent_task_id == before.tasks["e-1"].id
        assert after.dependencies == {Dependency("e-2", "e-1")}
        assert (report.tasks.created, report.phases.created, report.gone_tasks) == (1, 0, 0)
        text = "was imported as a task and stays one; the records below it are child tasks"
        assert ("note", "e-1", text) in report.remarks()

    async def test_a_third_import_says_nothing_new(self, bus: Bus) -> None:
        await bring(bus, CHILDLESS)
        await bring(bus, WITH_A_CHILD)
        report = await bring(bus, WITH_A_CHILD)
        assert (report.unchanged, report.differences) == (True, ())
        assert sorted(await work_off(bus)) == ["e-1", "e-1.1", "e-2"]
        assert (await bus.call(GetTaskQueue())).waiting == 0

    async def test_where_the_fleet_has_done_it(self, bus: Bus) -> None:
        await bring(bus, CHILDLESS)
        assert await work_off(bus) == ["e-1", "e-2"]
        await bring(bus, WITH_A_CHILD)
        assert sorted((await there(bus)).tasks) == ["e-1", "e-1.1", "e-2"]
        assert await work_off(bus) == ["e-1.1"]

    async def test_a_task_that_becomes_an_epic(self, bus: Bus) -> None:
        await bring(bus, [issue("e-1"), issue("e-1.1")])
        report = await bring(bus, [epic("e-1"), issue("e-1.1"), issue("e-1.2")])
        assert (report.tasks.created, report.phases.total) == (1, 0)

    async def test_a_part_that_comes_to_stand_alone(self, bus: Bus) -> None:
        await bring(bus, [epic("x"), epic("e-1", parent="x"), issue("e-1.1")])
        report = await bring(bus, [epic("x"), epic("e-1"), issue("e-1.1")])
        present = await there(bus)
        assert (set(present.phases), set(present.tasks)) == ({"x"}, {"e-1", "e-1.1"})
        assert (report.tasks.created, report.phases.created) == (0, 0)


class TestAPhaseStaysAPhase:
    async def test_its_parent_is_told_and_what_that_waits_for_is_waited_for(self, bus: Bus) -> None:
        await bring(bus, AT_THE_TOP)
        before = await there(bus)
        report = await bring(bus, BELOW)
        after = await there(bus)
        assert after.phases.keys() == {"e-1"}
        assert after.tasks.keys() == {"e-1.1", "e-2", "x", "y"}
        assert after.tasks["e-1.1"].phase_id == before.phases["e-1"].id
        assert after.dependencies == {
            Dependency("e-2", "e-1.1"),
            Dependency("x", "y"),
            Dependency("e-1.1", "y"),
        }
        text = "parent-child: e-1 was imported as a phase and stays one; a phase has no parent"
        assert ("left out", "e-1", text) in report.remarks()

    async def test_a_third_import_says_nothing_new(self, bus: Bus) -> None:
        await bring(bus, AT_THE_TOP)
        await bring(bus, BELOW)
        report = await bring(bus, BELOW)
        assert (report.unchanged, report.differences) == (True, ())
        assert sorted(await work_off(bus)) == ["e-1.1", "e-2", "x", "y"]

    @pytest.mark.parametrize(
        "records",
        [[epic("e-1")], [issue("e-1"), issue("e-1.1")]],
        ids=["its children went", "it is no epic any more"],
    )
    async def test_whatever_else_it_becomes(self, bus: Bus, records: Records) -> None:
        await bring(bus, AT_THE_TOP)
        report = await bring(bus, records)
        assert report.tasks.created == 0
        assert (await there(bus)).phases.keys() == {"e-1"}
        assert ("note", "e-1", "was imported as a phase and stays one") in report.remarks()


async def test_of_a_closed_epic_that_is_not_done_it_says_what_is(bus: Bus) -> None:
    report = await bring(bus, [epic("e-1", status="closed"), issue("e-1.1")])
    assert (await there(bus)).phases["e-1"].status == "in_progress"
    [note] = [text for sort, ref, text in report.remarks() if (sort, ref) == ("note", "e-1")]
    assert note == "closed, but some of its tasks are not; the phase is open here"


async def test_a_task_that_moves_makes_room_for_what_its_phase_waits_for(bus: Bus) -> None:
    """Where it was, its dependency and the new one of the phases would be a cycle."""
    await bring(bus, [epic("a"), epic("b"), issue("c", parent="b"), issue("d", "b", parent="a")])
    moved = [epic("a"), epic("b", "a"), issue("d")]
    await bring(bus, moved)
    assert Dependency("b", "a") in (await there(bus)).phase_dependencies
    assert (await bring(bus, moved)).unchanged


@st.composite
def forests(draw: st.DrawFn) -> Records:
    """Some of six records, each an epic or none, below an earlier one or not."""
    records: Records = []
    for number in range(6):
        if draw(st.integers(0, 4)) == 0:
            continue
        refs = [str(record["id"]) for record in records]
        parent = draw(st.sampled_from(["", *refs]))
        needs = draw(st.lists(st.sampled_from(refs), max_size=1)) if refs else []
        make = epic if draw(st.booleans()) else issue
        records.append(make(f"r{number}", *needs, parent=parent))
    return records


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(first=forests(), second=forests())
async def test_no_record_is_there_twice(bus: Bus, first: Records, second: Records) -> None:
    await bring(bus, first)
    before = await there(bus)
    report = await bring(bus, second)
    after = await there(bus)
    try:
        assert after.phases.keys() & after.tasks.keys() == set()
        assert before.phases.keys() <= after.phases.keys()
        assert before.tasks.keys() <= after.tasks.keys()
        assert {str(record["id"]) for record in second} <= after.phases.keys() | after.tasks.keys()
        assert report.records == len(second)
        assert (await bring(bus, second)).unchanged
    finally:
        assert after.initiative is not None
        await bus.call(DeleteInitiative(id=after.initiative.id))
