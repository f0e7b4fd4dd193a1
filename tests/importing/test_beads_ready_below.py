"""The same where tasks are below tasks: a child begins when what its parent waits for is done."""

from hypothesis import HealthCheck, assume, given, settings

from fleetbus.client import Bus
from fleetbus.importing.beads import open_beads
from fleetbus.importing.load import load_plan
from fleetbus.importing.taskmaster import read_taskmaster
from tests.importing._bd_ready import Graph, claim_all, complete_all
from tests.importing.test_beads_ready import compare, graphs, has_a_cycle, one
from tests.importing.test_real_plans import real


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
