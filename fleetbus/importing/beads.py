"""Read a Beads issue file, one JSON object a line.

An epic that has children and no parent is a phase. An epic within another record is a parent
task, since phases do not nest; an epic without children is a task, since a phase without tasks
would never complete. `blocks` is a dependency, `parent-child` a parent or the membership of a
phase; the other relations do not order tasks. Work in progress is imported as pending: whoever
does it has no lease here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from fleetbus.importing.graph import Layout, break_cycles, screen, settle
from fleetbus.importing.plan import (
    Category,
    Note,
    PhaseStatus,
    Plan,
    PlannedPhase,
    PlannedTask,
    Priority,
    Problem,
    Skipped,
    SourceEdge,
    TaskStatus,
    notes_on_order,
    parents_first,
    unfinished_phases,
)
from fleetbus.importing.records import (
    MAX_NAME,
    MAX_REASON,
    MAX_SUMMARY,
    Record,
    RecordUnreadable,
    external_ref,
    parse_json,
    read_text,
    require_records,
)

BLOCKS = "blocks"
PARENT = "parent-child"

PRIORITIES: dict[object, Priority] = {0: "high", 1: "high", 2: "medium", 3: "low", 4: "low"}
CATEGORIES: dict[str, Category] = {"merge-request": "merge", "spike": "research"}
STATUSES: dict[str, TaskStatus] = {
    "": "pending",
    "open": "pending",
    "in_progress": "pending",
    "hooked": "pending",
    "closed": "completed",
    "blocked": "blocked",
    "deferred": "blocked",
    "pinned": "blocked",
}
BLOCKED_REASONS = {
    "blocked": "Blocked in Beads",
    "deferred": "Deferred in Beads",
    "pinned": "Pinned in Beads: stays open and is not worked off",
}
UNFINISHED = {"in_progress", "hooked"}
NOT_WORK = {"agent", "convoy", "event", "message", "rig", "role", "slot"}


@dataclass(slots=True)
class _Source:
    records: dict[str, Record] = field(default_factory=dict)
    skipped: dict[str, Skipped] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    edges: list[SourceEdge] = field(default_factory=list)
    records_read: int = 0


def open_beads(path: Path, *, name: str | None = None) -> Plan:
    """Read a plan from a file; PlanUnreadable if there is none in it."""
    # str.splitlines would also split at U+2028, which JSON allows within a text
    return require_records(read_beads(read_text(path).split("\n"), name=name or path.stem), path)


def read_beads(lines: Iterable[str], *, name: str = "beads") -> Plan:
    """Read a plan from the lines of a Beads file, accounting for each that is not blank."""
    source = _read_lines(lines)
    parents, parent_edges = _settle_parents(source)
    phase_refs = _find_phases(source.records, parents)
    tasks = parents_first(
        _task(record, parents.get(ref), _phase_of(ref, parents, phase_refs))
        for ref, record in source.records.items()
        if ref not in phase_refs
    )
    phases = _phases([source.records[ref] for ref in phase_refs], tasks)
    settled = settle(
        (edge for edge in source.edges if edge.kind != PARENT),
        Layout({task.ref: task.phase_ref for task in tasks}, set(phase_refs), set(source.skipped)),
    )
    return Plan(
        name=name,
        records_read=source.records_read,
        phases=phases,
        tasks=tasks,
        dependencies=settled.dependencies,
        phase_dependencies=settled.phase_dependencies,
        edges=(*parent_edges, *settled.edges),
        skipped=tuple(source.skipped.values()),
        problems=tuple(source.problems),
        notes=(*source.notes, *notes_on_order(tasks, settled.dependencies)),
    )


def _read_lines(lines: Iterable[str]) -> _Source:
    source = _Source()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        source.records_read += 1
        try:
            _read_record(parse_json(line), source)
        except RecordUnreadable as error:
            source.problems.append(Problem(f"line {number}", str(error)))
    return source


def _read_record(parsed: object, source: _Source) -> None:
    if not isinstance(parsed, dict):
        raise RecordUnreadable("not a JSON object")
    source_id = parsed.get("id")
    if not isinstance(source_id, str) or not source_id.strip():
        raise RecordUnreadable("no id")
    ref = external_ref(source_id)
    if ref in source.records or ref in source.skipped:
        raise RecordUnreadable(f"duplicate id {ref}")
    record = Record(ref, parsed, source.notes)
    if reason := _reason_to_skip(parsed):
        source.skipped[ref] = Skipped(ref, reason)
    else:
        source.records[ref] = record
        if ref != source_id:
            record.note("the id was changed to one that can be stored")
    source.edges += _edges(record)


def _reason_to_skip(fields: Mapping[str, object]) -> str | None:
    if fields.get("status") == "tombstone":
        return "tombstone"
    kind = fields.get("issue_type")
    if isinstance(kind, str) and kind in NOT_WORK:
        return f"{kind} record"
    return "template" if fields.get("is_template") is True else None


def _edges(record: Record) -> list[SourceEdge]:
    edges = [_edge(record, entry) for entry in record.entries("dependencies")]
    parent = record.fields.get("parent")
    if isinstance(parent, str) and all(edge.kind != PARENT for edge in edges):
        edges.append(SourceEdge(PARENT, record.ref, external_ref(parent)))
    return edges


def _edge(record: Record, entry: object) -> SourceEdge:
    entry = entry if isinstance(entry, dict) else {}
    kind, depends_on = entry.get("type", BLOCKS), entry.get("depends_on_id")
    owner = entry.get("issue_id", record.ref)
    if not (isinstance(kind, str) and isinstance(depends_on, str) and isinstance(owner, str)):
        return SourceEdge("unreadable", record.ref, "", outcome="malformed")
    edge = SourceEdge(external_ref(kind), record.ref, external_ref(depends_on))
    if external_ref(owner) != record.ref or not edge.depends_on:
        return replace(edge, outcome="malformed")
    return edge if kind in {BLOCKS, PARENT} else replace(edge, outcome="other_kind")


def _settle_parents(source: _Source) -> tuple[dict[str, str], list[SourceEdge]]:
    """Give each record one parent at most, and no record itself as an ancestor."""
    stated = [edge for edge in source.edges if edge.kind == PARENT]
    first: dict[str, str] = {}
    edges: list[SourceEdge] = []
    for edge in screen(stated, source.records.keys(), source.skipped.keys()):
        second = edge.outcome == "used" and edge.ref in first
        edges.append(replace(edge, outcome="second_parent") if second else edge)
        if edges[-1].outcome == "used":
            first[edge.ref] = edge.depends_on
    cycles = break_cycles(first.items())
    for index, edge in enumerate(edges):
        path = cycles.get((edge.ref, edge.depends_on))
        if path and edge.outcome == "used":
            edges[index] = replace(edge, outcome="cycle", path=path)
    parents = {child: parent for child, parent in first.items() if (child, parent) not in cycles}
    return parents, edges


def _find_phases(records: Mapping[str, Record], parents: Mapping[str, str]) -> dict[str, None]:
    with_children = set(parents.values())
    return {
        ref: None
        for ref, record in records.items()
        if record.fields.get("issue_type") == "epic" and ref in with_children and ref not in parents
    }


def _phase_of(ref: str, parents: Mapping[str, str], phase_refs: Mapping[str, None]) -> str | None:
    while ref in parents:
        ref = parents[ref]
    return ref if ref in phase_refs else None


def _task(record: Record, parent: str | None, phase: str | None) -> PlannedTask:
    status, reason = _status(record)
    kind = record.text("issue_type", MAX_NAME)
    return PlannedTask(
        ref=record.ref,
        name=record.name(),
        phase_ref=phase,
        parent_ref=None if parent == phase else parent,
        description=_description(record),
        priority=_priority(record),
        category=CATEGORIES.get(kind, "execute"),
        status=status,
        blocked_reason=reason,
        summary=record.text("close_reason", MAX_SUMMARY) or None,
    )


def _phases(records: Iterable[Record], tasks: tuple[PlannedTask, ...]) -> tuple[PlannedPhase, ...]:
    names: set[str] = set()
    unfinished = unfinished_phases(tasks)
    phases = []
    for record in records:
        status, reason = _status(record)
        name = _unique_name(record, names)
        names.add(name)
        # a phase is started by whoever runs the plan, so it is never imported as begun
        state: PhaseStatus = "pending" if status == "in_progress" else status
        if state == "completed" and record.ref in unfinished:
            state = "pending"
            record.note("closed, but some of its tasks are not; the phase is pending")
        phases.append(PlannedPhase(record.ref, name, _description(record), state, reason))
    return tuple(phases)


def _unique_name(record: Record, names: set[str]) -> str:
    name = record.name()
    if name not in names:
        return name
    suffix = f" ({record.ref})"
    record.note("another phase has the same name; the id was added")
    return name[: MAX_NAME - len(suffix)] + suffix


def _description(record: Record) -> str:
    return record.sections(
        "description", design="Design", acceptance_criteria="Acceptance criteria", notes="Notes"
    )


def _status(record: Record) -> tuple[TaskStatus, str | None]:
    word = record.text("status", MAX_REASON)
    if word in UNFINISHED:
        record.note(f"{word} in Beads, pending here: no agent has a lease on it")
    if word not in STATUSES:
        record.note(f"status {word!r} is unknown; blocked until a person decides")
        return "blocked", f"Status {word!r} in Beads"
    return STATUSES[word], BLOCKED_REASONS.get(word)


def _priority(record: Record) -> Priority:
    value = record.fields.get("priority", 2)
    if isinstance(value, int) and not isinstance(value, bool) and value in PRIORITIES:
        return PRIORITIES[value]
    record.note("priority is none of 0 to 4, taken as 2")
    return "medium"
