"""What `bd ready` would name, written down anew from what Beads does, and the same plan worked off.

Of what Beads leaves to a person this keeps to what an import decides: a record that something holds
back holds back what is below it, what runs only if something fails does not begin by itself, and an
epic that is a phase is closed with the last record below it.
"""

from typing import Any

from contracts.planning.phases import ListDispatchablePhases, StartPhase
from contracts.planning.tasks import ClaimTasks, CompleteTask, TaskCategory
from fleetbus.client import Bus

Graph = dict[str, dict[str, Any]]
"""Records by id: status, type, parent, ephemeral, and edges as pairs of kind and id."""

OVER = {"closed", "pinned"}
NO_WORK = {"molecule", "message"}
EVERY_CATEGORY: list[TaskCategory] = ["execute", "research", "verify", "merge", "review"]


def records(graph: Graph) -> list[dict[str, object]]:
    """The lines of a Beads file."""
    return [
        {
            "id": ref,
            "title": ref,
            "status": one["status"],
            "issue_type": one["type"],
            "ephemeral": one["ephemeral"],
            "dependencies": [
                *({"depends_on_id": other, "type": kind} for kind, other in one["edges"]),
                *(
                    [{"depends_on_id": one["parent"], "type": "parent-child"}]
                    if one["parent"]
                    else []
                ),
            ],
        }
        for ref, one in graph.items()
    ]


class BdReady:
    """A database of Beads."""

    def __init__(self, graph: Graph) -> None:
        self.graph = {ref: dict(one) for ref, one in graph.items()}
        self.phases = {
            ref
            for ref, one in graph.items()
            if one["type"] == "epic"
            and self.is_work(ref)
            and self._work_above(ref) is None
            and any(self._work_above(other) == ref for other in graph if self.is_work(other))
        }

    def is_work(self, ref: str) -> bool:
        one = self.graph[ref]
        return not (one["type"] in NO_WORK or one["ephemeral"] or one["status"] == "pinned")

    def ready(self) -> set[str]:
        """What may begin now."""
        return {
            ref
            for ref, one in self.graph.items()
            if self.is_work(ref)
            and ref not in self.phases
            and one["status"] in {"open", "in_progress"}
            and not self._held(ref)
            and not self._blocked(ref)
        }

    def close(self, refs: set[str]) -> None:
        for ref in refs:
            self.graph[ref]["status"] = "closed"
        for phase in self.phases:
            below = [
                ref for ref in self.graph if self.is_work(ref) and phase in self._all_above(ref)
            ]
            if all(self.graph[ref]["status"] == "closed" for ref in below):
                self.graph[phase]["status"] = "closed"

    def _children(self, ref: str) -> list[str]:
        return [other for other, one in self.graph.items() if one["parent"] == ref]

    def _blocked(self, ref: str) -> bool:
        """The column `is_blocked`."""
        one = self.graph[ref]
        if one["status"] in OVER:
            return False
        return any(self._waits(kind, other) for kind, other in one["edges"]) or (
            one["parent"] is not None and self._blocked(one["parent"])
        )

    def _waits(self, kind: str, other: str) -> bool:
        if kind == "waits-for":
            return any(self.graph[child]["status"] not in OVER for child in self._children(other))
        return kind in {"blocks", "conditional-blocks"} and self.graph[other]["status"] not in OVER

    def _held(self, ref: str) -> bool:
        """Whether something else than an edge keeps it from beginning, or what is above it.

        What is no work holds nothing back itself, but what is below it runs only if it does.
        """
        one = self.graph[ref]
        own = one["status"] in {"blocked", "hooked", "deferred"} or one["type"] == "gate"
        conditional = any(kind == "conditional-blocks" for kind, _ in one["edges"])
        if one["status"] not in OVER and (conditional or (own and self.is_work(ref))):
            return True
        above = one["parent"]
        if above is None or (not self.is_work(above) and self.graph[above]["status"] in OVER):
            return False
        return self._held(above)

    def _work_above(self, ref: str) -> str | None:
        above: str | None = self.graph[ref]["parent"]
        while above is not None and not self.is_work(above):
            if self.graph[above]["status"] in OVER:
                return None
            above = self.graph[above]["parent"]
        return above

    def _all_above(self, ref: str) -> set[str]:
        above = self._work_above(ref)
        return set() if above is None else {above, *self._all_above(above)}


async def claim_all(bus: Bus, agent_id: str = "worker") -> dict[str, Any]:
    """Everything that may begin now, by the id that it has in Beads."""
    claimed: dict[str, Any] = {}
    while True:
        request = ClaimTasks(agent_id=agent_id, limit=50, categories=EVERY_CATEGORY)
        tasks = (await bus.call(request)).tasks
        if not tasks:
            return claimed
        claimed |= {str(one.task.external_ref): one.task for one in tasks}


async def complete_all(bus: Bus, initiative_id: Any, claimed: dict[str, Any]) -> None:
    """Complete these, and start the phases that may then be started."""
    for task in claimed.values():
        await bus.call(CompleteTask(id=task.id, attempt=task.attempt))
    while phases := (await bus.call(ListDispatchablePhases(initiative_id=initiative_id))).items:
        for phase in phases:
            await bus.call(StartPhase(id=phase.id))
