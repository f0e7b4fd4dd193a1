"""Order among the records of a plan: what waits for what, and never for itself."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter

from fleetbus.importing.plan import Dependency, SourceEdge

Moment = tuple[str, str]

MAX_EXPANDED = 10_000
"""How many task dependencies the relations of phases may stand for in one plan."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Which records became tasks, with their phases, which became phases, which nothing."""

    phase_of: Mapping[str, str | None]
    phases: AbstractSet[str]
    skipped: AbstractSet[str]
    parents: Mapping[str, str] = field(default_factory=dict)
    """Of tasks, the tasks above them; who is below a task that waits does not begin either."""


@dataclass(frozen=True, slots=True)
class Settled:
    """Every relation with its outcome, and what the plan keeps of them."""

    edges: tuple[SourceEdge, ...]
    dependencies: tuple[Dependency, ...]
    phase_dependencies: tuple[Dependency, ...]


def settle(edges: Iterable[SourceEdge], layout: Layout) -> Settled:
    """Decide on each relation so that what is kept can be executed to its end.

    Tasks come first: a relation that closes a cycle of tasks is left out, and one by which a task
    waits for what is below it, or what is below it for something that waits for it. Then those of
    phases, in their order, each kept whole or not at all: a task that waits for a phase waits for
    its tasks, the tasks of a phase wait for what the phase waits for, and a phase may wait for a
    phase.
    """
    screened = list(screen(edges, layout.phase_of.keys() | layout.phases, layout.skipped))
    between_tasks = [
        Dependency(edge.ref, edge.depends_on)
        for edge in screened
        if edge.outcome == "used" and not {edge.ref, edge.depends_on} & layout.phases
    ]
    cycles = break_cycles(between_tasks)
    schedule = _Schedule(layout)
    cycles |= schedule.take([edge for edge in between_tasks if edge not in cycles])
    settled = []
    for edge in screened:
        if edge.outcome != "used":
            settled.append(edge)
        elif path := cycles.get(Dependency(edge.ref, edge.depends_on)):
            settled.append(replace(edge, outcome="cycle", path=path))
        else:
            settled.append(schedule.place(edge))
    return Settled(tuple(settled), tuple(schedule.dependencies), tuple(schedule.phase_dependencies))


def screen(
    edges: Iterable[SourceEdge], known: AbstractSet[str], skipped: AbstractSet[str]
) -> Iterator[SourceEdge]:
    """Leave out what cannot be meant, each relation by itself."""
    seen: set[tuple[str, str]] = set()
    for edge in edges:
        pair = (edge.ref, edge.depends_on)
        absent = [ref for ref in pair if ref in skipped]
        if edge.outcome != "used":
            yield edge
        elif edge.ref == edge.depends_on:
            yield replace(edge, outcome="self")
        elif absent:
            yield replace(edge, outcome="skipped", path=(absent[0],))
        elif edge.depends_on not in known:
            yield replace(edge, outcome="dangling")
        elif pair in seen:
            yield replace(edge, outcome="duplicate")
        else:
            seen.add(pair)
            yield edge


def break_cycles(edges: Iterable[tuple[str, str]]) -> dict[tuple[str, str], tuple[str, ...]]:
    """Find the edges without which no cycle is left, each with the cycle that it would close.

    The walk follows the order of the edges, so the same plan always loses the same ones.
    """
    successors: defaultdict[str, list[str]] = defaultdict(list)
    for ref, depends_on in edges:
        successors[ref].append(depends_on)
    left_out: dict[tuple[str, str], tuple[str, ...]] = {}
    done: set[str] = set()
    for root in list(successors):
        if root not in done:
            _walk(root, successors, done, left_out)
    return left_out


def _walk(
    root: str,
    successors: Mapping[str, Sequence[str]],
    done: set[str],
    left_out: dict[tuple[str, str], tuple[str, ...]],
) -> None:
    path, depth = [root], {root: 0}
    pending = [iter(successors[root])]
    while path:
        node = path[-1]
        successor = next(pending[-1], None)
        if successor is None:
            done.add(node)
            del depth[path.pop()]
            pending.pop()
        elif successor in depth:
            left_out[node, successor] = (node, *path[depth[successor] :])
        elif successor not in done:
            depth[successor] = len(path)
            path.append(successor)
            pending.append(iter(successors.get(successor, ())))


class _Schedule:
    """The moments of a plan, with what precedes each.

    A task has two, the one from which on it may be begun and the one at which it is done; a phase
    has its start and its end.
    """

    def __init__(self, layout: Layout) -> None:
        self._phase_of = layout.phase_of
        self._tasks_of: defaultdict[str, list[str]] = defaultdict(list)
        self._phases = layout.phases
        self._after: defaultdict[Moment, list[Moment]] = defaultdict(list)
        self._expanded = 0
        self.dependencies: dict[Dependency, None] = {}
        self.phase_dependencies: dict[Dependency, None] = {}
        for ref, phase in layout.phase_of.items():
            self._after["done", ref].append(("open", ref))
            if ref in layout.parents:
                self._after["open", ref].append(("open", layout.parents[ref]))
            if phase is not None:
                self._tasks_of[phase].append(ref)
                self._after["open", ref].append(("start", phase))
                self._after["end", phase].append(("done", ref))
        for phase in layout.phases:
            self._after["end", phase].append(("start", phase))

    def take(self, edges: Iterable[Dependency]) -> dict[tuple[str, str], tuple[str, ...]]:
        """Keep relations between tasks; answers with those that cannot be, and their cycles.

        Only where there is a cycle at all is each relation near it looked at by itself.
        """
        edges = list(edges)
        near = self._near_cycles(edges)
        left_out: dict[tuple[str, str], tuple[str, ...]] = {}
        for edge in sorted(edges, key=lambda edge: ("open", edge.ref) in near):
            waits, awaited = ("open", edge.ref), ("done", edge.depends_on)
            if waits in near and (path := self._cycle(edge, waits, awaited)):
                left_out[edge] = path
            else:
                self.dependencies[edge] = None
                self._after[waits].append(awaited)
        return left_out

    def _near_cycles(self, edges: Iterable[Dependency]) -> set[Moment]:
        """The moments in a cycle or after one, were all these relations kept."""
        sorter: TopologicalSorter[Moment] = TopologicalSorter(self._after)
        for edge in edges:
            sorter.add(("open", edge.ref), ("done", edge.depends_on))
        moments = {*self._after, *(("open", edge.ref) for edge in edges)}
        with suppress(CycleError):
            sorter.prepare()
        while ready := sorter.get_ready():
            moments.difference_update(ready)
            sorter.done(*ready)
        return moments

    def _cycle(
        self, edge: Dependency | SourceEdge, waits: Moment, awaited: Moment
    ) -> tuple[str, ...]:
        """The cycle that a relation would close; empty if it closes none."""
        back = self._path(awaited, waits)
        refs = dict.fromkeys((edge.ref, *(ref for _, ref in back)))
        return (*refs, edge.ref) if back else ()

    def place(self, edge: SourceEdge) -> SourceEdge:
        """Keep the relation if nothing comes to wait for itself by it."""
        ends = (edge.ref in self._phases, edge.depends_on in self._phases)
        if not any(ends):
            return edge
        waits: Moment = ("start" if ends[0] else "open", edge.ref)
        awaited: Moment = ("end" if ends[1] else "done", edge.depends_on)
        if path := self._cycle(edge, waits, awaited):
            return replace(edge, outcome="cycle", path=path)
        if all(ends):
            self.phase_dependencies[Dependency(edge.ref, edge.depends_on)] = None
        elif not self._expand(edge):
            return replace(edge, outcome="too_many")
        self._after[waits].append(awaited)
        return edge

    def _expand(self, edge: SourceEdge) -> bool:
        waiting = self._tasks_of[edge.ref] if edge.ref in self._phases else [edge.ref]
        awaited = [edge.depends_on]
        if edge.depends_on in self._phases:
            awaited = self._tasks_of[edge.depends_on]
        expanded = self._expanded + len(waiting) * len(awaited)
        if expanded > MAX_EXPANDED:
            return False
        self._expanded = expanded
        for ref in waiting:
            self.dependencies.update((Dependency(ref, other), None) for other in awaited)
        return True

    def _path(self, start: Moment, goal: Moment) -> tuple[Moment, ...]:
        """Find a shortest path between two moments; empty if there is none."""
        came_from: dict[Moment, Moment | None] = {start: None}
        frontier = [start]
        while frontier and goal not in came_from:
            steps = [
                (moment, after) for moment in frontier for after in self._after.get(moment, ())
            ]
            frontier = []
            for moment, after in steps:
                if after not in came_from:
                    came_from[after] = moment
                    frontier.append(after)
        path: list[Moment] = []
        step: Moment | None = goal if goal in came_from else None
        while step is not None:
            path.append(step)
            step = came_from[step]
        return tuple(reversed(path))
