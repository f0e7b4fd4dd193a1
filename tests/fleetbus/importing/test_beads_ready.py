"""What may begin after an import is what `bd ready` names, from the first task to the last."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from contracts.planning.initiatives import DeleteInitiative
from fleetbus.client import Bus
from fleetbus.importing.beads import read_beads
from fleetbus.importing.load import load_plan
from fleetbus.importing.plan import Plan
from tests.fleetbus.importing._bd_ready import BdReady, Graph, claim_all, complete_all, records

WORDS = ["open", "open", "open", "in_progress", "closed", "blocked", "hooked", "pinned"]
TYPES = ["task", "task", "bug", "epic", "epic", "gate", "molecule"]
EDGES = ["blocks", "blocks", "waits-for", "conditional-blocks", "related"]


@st.composite
def graphs(draw: st.DrawFn, *, levels: bool) -> Graph:
    """Records that wait for earlier ones; with levels, they are below earlier ones too."""
    graph: Graph = {}
    for number in range(draw(st.integers(2, 9))):
        refs = list(graph)
        parent = draw(st.none() | st.sampled_from(refs)) if refs and levels else None
        others = draw(st.lists(st.sampled_from(refs), max_size=2)) if refs else []
        words = [word for word in WORDS if parent is None or word != "closed"]
        graph[f"b{number}"] = {
            "status": draw(st.sampled_from(words)),
            "type": draw(st.sampled_from(TYPES)),
            "ephemeral": draw(st.integers(0, 9)) == 0,
            "parent": parent,
            "edges": [(draw(st.sampled_from(EDGES)), other) for other in others],
        }
    return graph


def read_graph(graph: Graph) -> Plan:
    return read_beads(map(json.dumps, records(graph)))


def has_a_cycle(graph: Graph) -> bool:
    """Such a plan stands still in Beads, while here the relation that closes it is left out."""
    return any(edge.outcome in {"cycle", "self"} for edge in read_graph(graph).edges)


async def compare(bus: Bus, graph: Graph) -> None:
    """Work the plan off in both, and see that the same may begin each time."""
    plan = read_graph(graph)
    report = await load_plan(bus, plan, execution_mode="yolo")
    assert report.initiative_id is not None
    beads = BdReady(graph)
    try:
        while True:
            claimed = await claim_all(bus)
            assert set(claimed) == beads.ready()
            if not claimed:
                return
            await complete_all(bus, report.initiative_id, claimed)
            beads.close(set(claimed))
    finally:
        await bus.call(DeleteInitiative(id=report.initiative_id))


def one(parent: str | None = None, *edges: tuple[str, str], **fields: Any) -> dict[str, Any]:
    plain = {"status": "open", "type": "task", "ephemeral": False}
    return {**plain, "parent": parent, "edges": list(edges), **fields}


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)
@given(graph=graphs(levels=False))
async def test_without_levels(bus: Bus, graph: Graph) -> None:
    assume(not has_a_cycle(graph))
    await compare(bus, graph)


@pytest.mark.parametrize(
    "graph",
    [
        {"a": one(), "b": one(None, ("waits-for", "a")), "c": one("a")},
        {"a": one(type="epic"), "c": one("a"), "b": one(None, ("blocks", "a"))},
        {"x": one(), "a": one(None, ("blocks", "x"), type="epic"), "c": one("a")},
        {"x": one(), "m": one(None, ("blocks", "x"), type="molecule"), "c": one("m")},
        {
            "w": one(ephemeral=True),
            "b": one(None, ("blocks", "w")),
            "c": one(None, ("blocks", "b")),
        },
        {
            "a": one(),
            "w": one(None, ("conditional-blocks", "a"), ephemeral=True),
            "c": one("w"),
        },
    ],
    ids=[
        "waits-for",
        "task-after-phase",
        "phase-after-task",
        "lost-parent",
        "open-wisp",
        "below-what-runs-only-if-another-fails",
    ],
)
async def test_over_levels_that_are_phases_or_lost(bus: Bus, graph: Graph) -> None:
    await compare(bus, graph)
