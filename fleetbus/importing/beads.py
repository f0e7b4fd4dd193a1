"""Read a Beads issue file, one JSON object a line.

An epic that has children and no parent is a phase. An epic within another record is a parent
task, since phases do not nest; an epic without children is a task, since a phase without tasks
would never complete. What orders work in Beads orders it here, what holds it back there blocks it
here, and what is no work there is none here. Work in progress is imported as pending: whoever
does it has no lease here. A record that was imported before keeps the kind that it has here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from fleetbus.importing import _beads_text
from fleetbus.importing._beads_order import Order, order
from fleetbus.importing._beads_records import Source, kind, read_lines
from fleetbus.importing.graph import Layout, settle
from fleetbus.importing.plan import (
    Kept,
    Note,
    PhaseStatus,
    Plan,
    PlannedPhase,
    PlannedTask,
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
    read_text,
    require_records,
)


def open_beads(path: Path, *, name: str | None = None) -> Plan:
    """Read a plan from a file; PlanUnreadable if there is none in it."""
    # str.splitlines would also split at U+2028, which JSON allows within a text
    return require_records(read_beads(read_text(path).split("\n"), name=name or path.stem), path)


def read_beads(lines: Iterable[str], *, name: str = "beads", now: datetime | None = None) -> Plan:
    """Read a plan from the lines of a Beads file, accounting for each that is not blank."""
    lines, moment = tuple(lines), now or datetime.now(UTC)

    def reread(kept: Kept) -> Plan:
        source = read_lines(lines)
        plan = _Reader(source, order(source, kept.phases), moment, kept).plan(name)
        return replace(plan, reread=reread)

    return reread(Kept())


class _Reader:
    """Makes tasks and phases of records."""

    def __init__(self, source: Source, relations: Order, now: datetime, kept: Kept) -> None:
        self._source = source
        self._order = relations
        self._now = now
        self._phases = _find_phases(source.work, relations.parents, kept)
        self._related: dict[str, list[SourceEdge]] = {}
        for edge in relations.edges:
            if edge.outcome == "other_kind":
                self._related.setdefault(edge.ref, []).append(edge)

    def plan(self, name: str) -> Plan:
        """Everything that was read, each record and relation accounted for."""
        source = self._source
        tasks = parents_first(
            self._task(record) for ref, record in source.work.items() if ref not in self._phases
        )
        phases = self._planned_phases(unfinished_phases(tasks))
        parent_edges = [edge for edge in self._order.edges if edge.kind == "parent-child"]
        settled = settle(
            (edge for edge in self._order.edges if edge.kind != "parent-child"),
            Layout(
                {task.ref: task.phase_ref for task in tasks},
                set(self._phases),
                set(source.markers),
                {task.ref: task.parent_ref for task in tasks if task.parent_ref},
            ),
        )
        return Plan(
            name=name,
            records_read=source.records_read,
            phases=phases,
            tasks=tasks,
            dependencies=settled.dependencies,
            phase_dependencies=settled.phase_dependencies,
            edges=(*parent_edges, *settled.edges),
            skipped=tuple(source.skipped),
            problems=tuple(source.problems),
            notes=(*source.notes, *notes_on_order(tasks, settled.dependencies)),
            not_kept=tuple(self._not_kept()),
        )

    def _not_kept(self) -> Iterable[Note]:
        for record in self._source.work.values():
            yield from record.not_kept(_beads_text.DERIVED)
            yield from self._order.not_kept.get(record.ref, ())

    def _task(self, record: Record) -> PlannedTask:
        phase = self._phase_of(record.ref)
        parent = self._order.parents.get(record.ref)
        status, reason = self._state(record)
        summary = record.text("close_reason", MAX_SUMMARY) if status == "completed" else ""
        return PlannedTask(
            ref=record.ref,
            name=record.name(),
            phase_ref=phase,
            parent_ref=None if parent == phase else parent,
            description=_beads_text.description(record, self._related.get(record.ref, ())),
            priority=_beads_text.priority(record),
            category=_beads_text.category(record),
            status=status,
            blocked_reason=reason,
            summary=summary or None,
        )

    def _phase_of(self, ref: str) -> str | None:
        while ref in self._order.parents:
            ref = self._order.parents[ref]
        return ref if ref in self._phases else None

    def _state(self, record: Record) -> tuple[TaskStatus, str | None]:
        """How far a record is; what it waits for outside of the plan holds it back too."""
        status, reason = _beads_text.state(record, self._now)
        if status == "completed" or record.ref not in self._order.held:
            return status, reason
        reasons = dict.fromkeys(filter(None, (reason, *self._order.held[record.ref])))
        return "blocked", "; ".join(reasons)[:MAX_REASON]

    def _planned_phases(self, unfinished: set[str]) -> tuple[PlannedPhase, ...]:
        names: set[str] = set()
        phases = []
        for record in (self._source.work[ref] for ref in self._phases):
            status, reason = self._state(record)
            name = _unique_name(record, names)
            names.add(name)
            # a phase is started by whoever runs the plan, so it is never imported as begun
            state: PhaseStatus = "pending" if status == "in_progress" else status
            if state == "completed" and record.ref in unfinished:
                state = "pending"
                record.note("closed, but some of its tasks are not; the phase is open here")
            related = self._related.get(record.ref, ())
            text = _beads_text.description(record, related, phase=True)
            phases.append(PlannedPhase(record.ref, name, text, state, reason))
        return tuple(phases)


def _find_phases(
    records: Mapping[str, Record], parents: Mapping[str, str], kept: Kept
) -> dict[str, None]:
    with_children = set(parents.values())
    phases: dict[str, None] = {}
    for ref, record in records.items():
        is_phase = ref in with_children and ref not in parents and kind(record) == "epic"
        if is_phase and ref in kept.tasks:
            record.note(
                "was imported as a task and stays one; the records below it are child tasks"
            )
        elif is_phase:
            phases[ref] = None
        elif ref in kept.phases:
            record.note("was imported as a phase and stays one")
            phases[ref] = None
    return phases


def _unique_name(record: Record, names: set[str]) -> str:
    name = record.name()
    if name not in names:
        return name
    suffix = f" ({record.ref})"
    record.note("another phase has the same name; the id was added")
    return name[: MAX_NAME - len(suffix)] + suffix
