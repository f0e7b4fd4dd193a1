"""Tasks below tasks: a child begins when what its parent waits for is done."""

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings

from contracts.planning.tasks import GetTaskQueue, Task
from fleetbus.client import Bus
from fleetbus.demo.recorder import Recorder, read_stored
from fleetbus.demo.verify import verify
from fleetbus.demo.worker import work_off
from fleetbus.importing.beads import open_beads
from fleetbus.importing.load import load_plan
from fleetbus.importing.plan import Plan
from fleetbus.importing.taskmaster import open_taskmaster, read_taskmaster
from tests.fleetbus.importing._bd_ready import Graph, claim_all, complete_all
from tests.fleetbus.importing.test_beads_ready import compare, graphs, has_a_cycle, one
from tests.fleetbus.importing.test_real_plans import real

WORKERS = 8
IDLE_SECONDS = 3.0
"""After so long without anything to claim a worker takes it that there is nothing left."""


@pytest.fixture(params=["beads-issues.jsonl", "taskmaster-tasks.json"])
def plan(request: pytest.FixtureRequest) -> Plan:
    path = real(request.param)
    return open_beads(path) if path.suffix == ".jsonl" else open_taskmaster(path)


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)
@given(graph=graphs(levels=True))
async def test_with_levels(bus: Bus, graph: Graph) -> None:
    assume(not has_a_cycle(graph))
    await compare(bus, graph)


async def test_a_child_waits_for_what_its_parent_waits_for(bus: Bus) -> None:
    await compare(bus, {"x": one(), "p": one(None, ("blocks", "x")), "c": one("p")})


async def test_a_plan_with_every_kind(bus: Bus) -> None:
    """Of `beads-kinds.jsonl`: what may begin at once, after that, and once a person has looked."""
    report = await load_plan(bus, open_beads(real("beads-kinds.jsonl")), execution_mode="yolo")
    rounds = []
    while claimed := await claim_all(bus):
        rounds.append(set(claimed))
        await complete_all(bus, report.initiative_id, claimed)
    assert rounds == [{"rk-2", "rk-13", "rk-14"}, {"rk-1", "rk-3"}, {"rk-4"}]


async def test_subtasks_wait_for_what_their_task_waits_for(bus: Bus) -> None:
    tasks = [
        {"id": 1, "title": "One"},
        {"id": 2, "title": "Two", "dependencies": [1], "subtasks": [{"id": 1, "title": "Sub"}]},
    ]
    report = await load_plan(bus, read_taskmaster({"t": {"tasks": tasks}}), execution_mode="yolo")
    first = await claim_all(bus)
    assert set(first) == {"t/1"}
    await complete_all(bus, report.initiative_id, first)
    assert set(await claim_all(bus)) == {"t/2", "t/2.1"}


@pytest.mark.own_service  # the stream is compared with the tables
@pytest.mark.parametrize("mode", ["yolo", "review_per_phase"])
async def test_a_fleet_finishes_what_can_be_finished(bus: Bus, plan: Plan, mode: Any) -> None:
    expected = _finishable(plan)
    recorder = Recorder(bus, durable="recorder")
    recording = asyncio.create_task(recorder.run())
    try:
        report = await load_plan(bus, plan, execution_mode=mode)
        assert report.initiative_id is not None
        done = sum(await asyncio.gather(*(_work(bus, f"worker-{n}") for n in range(WORKERS))))
        stored = await read_stored(bus, report.initiative_id)
        await recorder.catch_up(stored)
    finally:
        recording.cancel()
        await asyncio.wait([recording])

    checks = verify(recorder.history, stored, plan.dependencies + plan.phase_dependencies)
    assert {check.promise: check.violations for check in checks if not check.kept} == {}
    completed = {e.external_ref for e in stored if isinstance(e, Task) and e.status == "completed"}
    before = {one.ref for one in plan.tasks if one.status == "completed"}
    assert completed == before | expected
    assert done == len(expected) == sum(recorder.done_by.values())
    queue = await bus.call(GetTaskQueue())
    assert (queue.ready, queue.in_progress, queue.completed) == (0, 0, len(completed))


async def _work(bus: Bus, name: str) -> int:
    async with bus.agent(name=name) as agent:
        return await work_off(agent, work=(0, 0), idle_seconds=IDLE_SECONDS)


def _finishable(plan: Plan) -> set[str]:
    """The pending tasks that no blocked one holds up, from above or at whatever distance."""
    pending = {one.ref for one in plan.tasks if one.status == "pending"}
    held = {one.ref for one in plan.tasks if one.status == "blocked"}
    names = [*plan.dependencies, *((one.ref, one.parent_ref) for one in plan.tasks)]
    while more := {ref for ref, other in names if other in held} & pending - held:
        held |= more
    return pending - held
