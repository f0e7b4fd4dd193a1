"""What phases depend on."""

from __future__ import annotations

from bus.storage import Graph, Listing
from contracts.planning.phases import ListPhaseDependencies, ListPhaseDependents, Phase
from persistence.planning.tables import phase_dependency

PHASE_GRAPH = Graph(Phase, phase_dependency)

Listing(ListPhaseDependencies, {"id": PHASE_GRAPH.dependencies}, within=Phase)
Listing(ListPhaseDependents, {"id": PHASE_GRAPH.dependents}, within=Phase)
