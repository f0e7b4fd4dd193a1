from collections import Counter
from typing import Any

import pytest

from bus.contract.operation import Operation
from contracts.planning.tasks import CreateManyTasks
from fleetbus.client import Bus
from fleetbus.importing.beads import open_beads
from fleetbus.importing.load import load_plan
from fleetbus.importing.plan import Plan
from fleetbus.importing.present import read_present
from fleetbus.importing.taskmaster import open_taskmaster
from tests.fleetbus.importing.test_real_plans import real
from tests.kit.outbox import Outbox


def _beads() -> Plan:
    return open_beads(real("beads-issues.jsonl"))


def _taskmaster() -> Plan:
    return open_taskmaster(real("taskmaster-tasks.json"))


@pytest.fixture(params=[_beads, _taskmaster], ids=["beads", "taskmaster"])
def plan(request: pytest.FixtureRequest) -> Plan:
    opened: Plan = request.param()
    return opened


class LineBroken(Exception):
    pass


class BreakingBus(Bus):
    """A connection that is lost after the first tasks were created."""

    async def call(self, operation: Operation[Any], **options: Any) -> Any:
        reply = await super().call(operation, **options)
        if isinstance(operation, CreateManyTasks):
            raise LineBroken
        return reply


async def test_every_issue_and_edge_is_accounted_for(bus: Bus) -> None:
    report = await load_plan(bus, _beads(), source="beads")

    assert report.records == 704
    assert {what: created for what, created, *_ in report.rows()} == {
        "initiative": 1,
        "phases": 6,
        "tasks": 142,
        "dependencies": 20,
        "phase dependencies": 0,
    }
    assert Counter(record.reason for record in report.skipped) == {
        "wisp": 542,
        "agent record": 9,
        "convoy record": 2,
        "pinned": 2,
        "message record": 1,
    }
    left_out = [edge for edge in report.left_out if edge.kind == "blocks"]
    assert report.dependencies.created + len(left_out) == 377
    assert Counter(note.text for note in report.not_kept) == {
        "created_at of its dependencies is not kept": 70
    }
    present = await read_present(bus, report.external_ref)
    assert present.dependencies == set(_beads().dependencies)


async def test_every_record_of_task_master_is_accounted_for(bus: Bus) -> None:
    plan = _taskmaster()
    report = await load_plan(bus, plan, source="taskmaster")

    assert report.records == plan.records_read == 1105
    assert (report.tasks.created, report.dependencies.created) == (1096, 972)
    present = await read_present(bus, report.external_ref)
    assert present.dependencies == set(plan.dependencies)
    parents = {one.id: ref for ref, one in present.tasks.items()}
    assert {one.ref: one.parent_ref for one in plan.tasks} == {
        ref: one.parent_task_id and parents[one.parent_task_id]
        for ref, one in present.tasks.items()
    }


async def test_a_second_import_tells_nothing(bus: Bus, plan: Plan, outbox: Outbox) -> None:
    first = await load_plan(bus, plan)
    before = await outbox.count()
    second = await load_plan(bus, plan)

    assert await outbox.count() == before
    assert second.unchanged
    assert [row[3] for row in second.rows()] == [row[1] for row in first.rows()]
    assert (second.differences, second.gone_tasks, second.gone_dependencies) == ((), 0, 0)


async def test_an_import_that_broke_off_is_completed(
    bus: Bus, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleetbus.importing.packing.MAX_ITEMS", 100)
    broken = BreakingBus(bus.nats, timeout=10, attempt_timeout=5)
    with pytest.raises(LineBroken):
        await load_plan(broken, plan)
    there = await read_present(bus, f"plan:{plan.name}")
    report = await load_plan(bus, plan)

    assert 0 < len(there.tasks) < len(plan.tasks)
    assert report.tasks.unchanged == len(there.tasks)
    assert report.tasks.created == len(plan.tasks) - len(there.tasks)
    assert report.tasks.updated == report.dependencies.refused == 0
    assert report.dependencies.unchanged == len(there.dependencies)
    present = await read_present(bus, f"plan:{plan.name}")
    assert present.tasks.keys() == {one.ref for one in plan.tasks}
    assert present.dependencies == set(plan.dependencies)
    assert (await load_plan(bus, plan)).unchanged
