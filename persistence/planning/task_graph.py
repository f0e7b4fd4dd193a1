"""What tasks depend on."""

from __future__ import annotations

from bus.storage import Graph, Listing
from contracts.planning.tasks import ListTaskDependencies, ListTaskDependents, Task
from persistence.planning.tables import task_dependency

TASK_GRAPH = Graph(Task, task_dependency)

Listing(ListTaskDependencies, {"id": TASK_GRAPH.dependencies}, within=Task)
Listing(ListTaskDependents, {"id": TASK_GRAPH.dependents}, within=Task)
