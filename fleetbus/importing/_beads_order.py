"""What waits for what in a Beads file, as ``bd ready`` reads it.

`blocks` and `conditional-blocks` wait for a record, `waits-for` for the children of one; who is
below a record that waits does not begin either. Nothing waits for what is closed or pinned.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from fleetbus.importing._beads_records import CLOSED, Source, has_failed, is_over, status_word
from fleetbus.importing.graph import MAX_EXPANDED, break_cycles, screen
from fleetbus.importing.plan import Note, SourceEdge
from fleetbus.importing.records import Record, external_ref

BLOCKS, PARENT = "blocks", "parent-child"
CONDITIONAL, WAITS_FOR = "conditional-blocks", "waits-for"
SAID = {"type", "depends_on_id", "issue_id", "metadata"}
ORDERING = {BLOCKS, CONDITIONAL, WAITS_FOR}
EXTERNAL = "external:"
"""How the id of a capability of another project begins: `external:<project>:<capability>`."""
INHERITED = "inherited"
"""The kind of a relation that was stated of something above, and holds for what is below it."""


@dataclass(slots=True)
class Order:
    """Who is below whom, and every relation with what became of it so far."""

    parents: dict[str, str] = field(default_factory=dict)
    """Of work, the work above it: the nearest, where what lies between is not imported."""
    edges: list[SourceEdge] = field(default_factory=list)
    held: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Why a record cannot begin, beyond what it waits for here."""
    not_kept: dict[str, list[Note]] = field(default_factory=dict)
    """What the relations of a record say besides who waits for whom."""


def order(source: Source, stay_phases: AbstractSet[str] = frozenset()) -> Order:
    """Read the relations of all records; those that stay phases are below nothing.

    What is above such a record in Beads is lost to it, and what that waits for it waits for itself.
    """
    return _Reader(source, stay_phases).read()


class _Reader:
    def __init__(self, source: Source, stay_phases: AbstractSet[str]) -> None:
        self._source = source
        self._stay_phases = stay_phases
        self._expanded = 0
        self._any_child: set[tuple[str, str]] = set()
        self._order = Order()
        stated = [edge for record in source.records().values() for edge in self._stated(record)]
        stated += self._dotted({edge.ref for edge in stated if edge.kind == PARENT})
        self._parent_edges = [edge for edge in stated if edge.kind == PARENT]
        self._others = [edge for edge in stated if edge.kind != PARENT]
        self._above: defaultdict[str, list[str]] = defaultdict(list)
        self._children: defaultdict[str, list[str]] = defaultdict(list)
        self._ordering: defaultdict[str, list[SourceEdge]] = defaultdict(list)
        for edge in self._others:
            if edge.kind in ORDERING and edge.outcome == "used":
                self._ordering[edge.ref].append(edge)

    def read(self) -> Order:
        self._settle_parents()
        for edge in self._others:
            self._order.edges += self._placed(edge)
        for ref in self._source.work:
            for edge in self._inherited(ref):
                self._order.edges += self._placed(edge)
        return self._order

    def _stated(self, record: Record) -> list[SourceEdge]:
        entries = record.entries("dependencies")
        edges = [self._edge(record, entry) for entry in entries]
        others = {key: None for entry in entries if isinstance(entry, dict) for key in entry}
        self._order.not_kept[record.ref] = [
            Note(record.ref, f"{key} of its dependencies is not kept")
            for key in map(external_ref, others.keys() - SAID)
        ]
        parent = record.value("parent")
        if isinstance(parent, str) and parent and all(edge.kind != PARENT for edge in edges):
            edges.append(SourceEdge(PARENT, record.ref, external_ref(parent)))
        return edges

    def _edge(self, record: Record, entry: object) -> SourceEdge:
        entry = entry if isinstance(entry, dict) else {}
        kind, depends_on = entry.get("type", BLOCKS), entry.get("depends_on_id")
        owner = entry.get("issue_id", record.ref)
        if not (isinstance(kind, str) and isinstance(depends_on, str) and isinstance(owner, str)):
            return SourceEdge("unreadable", record.ref, "", outcome="malformed")
        edge = SourceEdge(external_ref(kind), record.ref, external_ref(depends_on))
        if external_ref(owner) != record.ref or not edge.depends_on:
            return replace(edge, outcome="malformed")
        if edge.kind == WAITS_FOR and _gate(entry.get("metadata")) == "any-children":
            self._any_child.add((edge.ref, edge.depends_on))
        return edge if edge.kind in ORDERING | {PARENT} else replace(edge, outcome="other_kind")

    def _dotted(self, with_parent: set[str]) -> Iterator[SourceEdge]:
        """Children by their ids: `a-1.2` is below `a-1`, unless a relation says otherwise."""
        for ref in self._source.records():
            above = ref.rpartition(".")[0]
            while above and above not in self._source:
                above = above.rpartition(".")[0]
            if above and ref not in with_parent:
                yield SourceEdge(PARENT, ref, above)

    def _settle_parents(self) -> None:
        """Give each record one parent at most, and no record itself as an ancestor."""
        edges = list(screen(self._parent_edges, self._source.records().keys(), set()))
        pairs = [(edge.ref, edge.depends_on) for edge in edges if edge.outcome == "used"]
        cycles = break_cycles(pairs)
        for child, parent in pairs:
            if (child, parent) not in cycles:
                self._above[child].append(parent)
                self._children[parent].append(child)
        for ref in (ref for ref in self._source.work if ref not in self._stay_phases):
            if (nearest := self._nearest(ref)) is not None:
                self._order.parents[ref] = nearest
        self._order.edges += (self._parent_outcome(edge, cycles) for edge in edges)

    def _parent_outcome(
        self, edge: SourceEdge, cycles: Mapping[tuple[str, str], tuple[str, ...]]
    ) -> SourceEdge:
        if edge.outcome != "used":
            return edge
        if path := cycles.get((edge.ref, edge.depends_on)):
            return replace(edge, outcome="cycle", path=path)
        for ref in (edge.ref, edge.depends_on):
            if ref in self._source.markers:
                return replace(edge, outcome="skipped", path=(ref,))
        if edge.ref in self._stay_phases:
            return replace(edge, outcome="stays_phase")
        taken = self._order.parents[edge.ref] == edge.depends_on
        return edge if taken else replace(edge, outcome="second_parent")

    def _nearest(self, ref: str) -> str | None:
        """The work above a record: its first parent, or what is above one that is no work."""
        seen = {ref}
        frontier = self._above[ref]
        while frontier:
            for parent in frontier:
                if parent in self._source.work:
                    return parent
            above = [
                parent
                for marker in frontier
                if not is_over(self._source.markers[marker])
                for parent in self._above[marker]
            ]
            frontier = [parent for parent in dict.fromkeys(above) if parent not in seen]
            seen.update(frontier)
        return None

    def _placed(self, edge: SourceEdge) -> Iterator[SourceEdge]:
        """What a relation is here: one or several, or why it is none."""
        if edge.outcome != "used":
            yield edge
        elif edge.ref in self._source.markers:
            yield replace(edge, outcome="skipped", path=(edge.ref,))
        elif self._binds_only_what_is_below(edge.ref):
            yield replace(edge, outcome="met", path=(edge.ref,))
        elif self._is_external(edge.depends_on):
            # whether it was shipped is known in that project only, and until then not
            self._order.held[edge.ref].append(f"Waits in Beads for {edge.depends_on}")
            yield replace(edge, outcome="external")
        elif WAITS_FOR in edge.kind:
            yield from self._for_children(edge)
        else:
            if CONDITIONAL in edge.kind:
                self._hold_by_condition(edge)
            yield self._for_one(edge)

    def _is_external(self, ref: str) -> bool:
        return ref.lower().startswith(EXTERNAL) and ref not in self._source

    def _binds_only_what_is_below(self, ref: str) -> bool:
        """Whether a record is closed, but not all below it: these wait for nothing of its own."""
        return is_over(self._source.work[ref]) and any(
            not is_over(self._source.record(child)) for child in self._children[ref]
        )

    def _for_children(self, edge: SourceEdge) -> Iterator[SourceEdge]:
        children = self._children[edge.depends_on]
        if not children:
            known = edge.depends_on in self._source
            yield replace(edge, outcome="no_children" if known else "dangling")
            return
        if (edge.ref, edge.depends_on) in self._any_child and len(children) > 1:
            closed = [one for one in children if status_word(self._source.record(one)) == CLOSED]
            if closed:
                yield replace(edge, outcome="met", path=(closed[0],))
                return
            self._source.work[edge.ref].note(
                f"waits for any child of {edge.depends_on} in Beads, here for all of them"
            )
        self._expanded += len(children)
        if self._expanded > MAX_EXPANDED:
            reason = f"Waits in Beads for the children of {edge.depends_on}, here too many"
            self._order.held[edge.ref].append(reason)
            yield replace(edge, outcome="too_many")
            return
        for child in children:
            yield self._for_one(replace(edge, depends_on=child))

    def _for_one(self, edge: SourceEdge) -> SourceEdge:
        marker = self._source.markers.get(edge.depends_on)
        if marker is None:
            return edge
        if is_over(marker):
            return replace(edge, outcome="met", path=(edge.depends_on,))
        self._order.held[edge.ref].append(
            f"Waits in Beads for {edge.depends_on}, which is not imported"
        )
        return replace(edge, outcome="held", path=(edge.depends_on,))

    def _hold_by_condition(self, edge: SourceEdge) -> None:
        """What runs only if something else fails is for a person to let begin, once it has."""
        if edge.depends_on not in self._source:
            return
        other = self._source.record(edge.depends_on)
        if not has_failed(other):
            closed = "; it was closed, and not for a failure" if is_over(other) else ""
            reason = f"Runs in Beads only if {edge.depends_on} fails{closed}"
            self._order.held[edge.ref].append(reason)

    def _inherited(self, ref: str) -> Iterator[SourceEdge]:
        """The relations of what is above a record in Beads and, since it was lost, not here."""
        seen = {ref}
        parent = self._order.parents.get(ref)
        while parent is not None:
            seen.add(parent)
            parent = self._order.parents.get(parent)
        frontier = list(self._above[ref])
        while frontier:
            above = frontier.pop()
            if above in seen or is_over(self._source.record(above)):
                continue
            seen.add(above)
            frontier += self._above[above]
            for edge in self._ordering[above]:
                if edge.depends_on != ref:
                    if (above, edge.depends_on) in self._any_child:
                        self._any_child.add((ref, edge.depends_on))
                    yield replace(edge, ref=ref, kind=f"{INHERITED} {edge.kind}")


def _gate(metadata: object) -> object:
    """Which children a `waits-for` waits for; whatever is unreadable means all of them."""
    if isinstance(metadata, str):
        try:
            metadata = json.loads(metadata)
        except (ValueError, RecursionError):
            return None
    return metadata.get("gate") if isinstance(metadata, dict) else None
