"""Read a Task Master file: a JSON object of tags, each with its tasks and their subtasks.

A tag is a phase, a subtask a child task; refs are `tag/3` and `tag/3.1`. A dependency without a
dot names a sibling, else a task of the tag; one with a dot is the path of a subtask. Subtasks
without a priority have that of their parent, and do not begin before what it waits for is done.
Work in progress is imported as pending: whoever does it has no lease here. What is cancelled,
deferred or in review waits for a person.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fleetbus.importing._taskmaster_text import (
    DERIVED,
    description,
    priority,
    state,
    tag_description,
)
from fleetbus.importing.graph import Layout, settle
from fleetbus.importing.plan import (
    Note,
    Plan,
    PlannedPhase,
    PlannedTask,
    PlanUnreadable,
    Problem,
    SkippedRecord,
    SourceEdge,
    notes_on_order,
    unfinished_phases,
)
from fleetbus.importing.records import (
    Record,
    RecordUnreadable,
    external_ref,
    parse_json,
    read_text,
    require_records,
)

DEPENDENCIES = "dependencies"
UNTAGGED = "master"


@dataclass(frozen=True, slots=True)
class _Entry:
    """A task as it was found: its path within the tag and the entry that holds it."""

    path: str
    holder: "_Entry | None"
    record: Record


@dataclass(frozen=True, slots=True)
class _Item:
    """A task still to be read, and where it stands."""

    value: object
    holder: _Entry | None
    where: str


@dataclass(slots=True)
class _Source:
    phases: list[PlannedPhase] = field(default_factory=list)
    tasks: list[PlannedTask] = field(default_factory=list)
    edges: list[SourceEdge] = field(default_factory=list)
    skipped: list[SkippedRecord] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    not_kept: list[Note] = field(default_factory=list)
    refs: set[str] = field(default_factory=set)
    records_read: int = 0

    def reserve(self, stated: str) -> str:
        """Take a ref that no other record has."""
        ref, copies = external_ref(stated), 1
        while ref in self.refs:
            copies += 1
            ref = external_ref(f"{stated}~{copies}")
        self.refs.add(ref)
        return ref


def open_taskmaster(path: Path, *, name: str | None = None) -> Plan:
    """Read a plan from a file; PlanUnreadable if there is none in it."""
    try:
        document = parse_json(read_text(path))
    except RecordUnreadable as error:
        raise PlanUnreadable(f"{path}: {error}") from error
    return require_records(read_taskmaster(document, name=name or path.stem), path)


def read_taskmaster(document: object, *, name: str = "taskmaster") -> Plan:
    """Read a plan from a parsed Task Master file, accounting for every tag, task and subtask."""
    source = _Source()
    tags = _tags(document)
    refs = {tag: source.reserve(tag) for tag in tags}
    for tag, content in tags.items():
        _read_tag(tag, refs[tag], content, source)
    phase_of = {task.ref: task.phase_ref for task in source.tasks}
    parents = {task.ref: task.parent_ref for task in source.tasks if task.parent_ref}
    layout = Layout(phase_of, {phase.ref for phase in source.phases}, set(), parents)
    settled = settle(source.edges, layout)
    unfinished = unfinished_phases(source.tasks)
    return Plan(
        name=name,
        records_read=source.records_read,
        phases=tuple(
            phase if phase.ref in unfinished else replace(phase, status="completed")
            for phase in source.phases
        ),
        tasks=tuple(source.tasks),
        dependencies=settled.dependencies,
        phase_dependencies=settled.phase_dependencies,
        edges=settled.edges,
        skipped=tuple(source.skipped),
        problems=tuple(source.problems),
        notes=(*source.notes, *notes_on_order(source.tasks, settled.dependencies)),
        not_kept=tuple(source.not_kept),
    )


def _tags(document: object) -> Mapping[str, object]:
    if not isinstance(document, dict):
        return {UNTAGGED: document}
    # files from before there were tags hold the tasks of one
    return {UNTAGGED: document} if isinstance(document.get("tasks"), list) else document


def _read_tag(tag: str, ref: str, content: object, source: _Source) -> None:
    source.records_read += 1
    items = content.get("tasks") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(items, list):
        source.problems.append(Problem(f"tag {ref}", "not an object with a list of tasks"))
        return
    entries = _read_entries(tag, items, source)
    if not entries:
        source.skipped.append(SkippedRecord(ref, "tag without tasks"))
        return
    tasks: dict[str, PlannedTask] = {}
    for entry in entries.values():
        holder = tasks[entry.holder.path] if entry.holder else None
        tasks[entry.path] = _task(entry, ref, holder)
        source.edges += _edges(tag, entry, entries)
        source.not_kept += entry.record.not_kept(DERIVED)
    source.tasks += tasks.values()
    source.phases.append(_phase(ref, tag, content, source))


def _read_entries(tag: str, items: list[object], source: _Source) -> dict[str, _Entry]:
    """Find the tasks of a tag by their paths, each before its subtasks."""
    entries: dict[str, _Entry] = {}
    unread = _stacked(items, None, f"tag {external_ref(tag)}, task")
    while unread:
        item = unread.pop()
        source.records_read += 1
        try:
            entry = _entry(tag, item, entries, source)
        except RecordUnreadable as error:
            source.problems.append(Problem(item.where, str(error)))
            _give_up_subtasks(item, source)
            continue
        entries[entry.path] = entry
        where = f"task {entry.record.ref}, subtask"
        unread += _stacked(entry.record.entries("subtasks"), entry, where)
    return entries


def _stacked(values: Sequence[object], holder: _Entry | None, what: str) -> list[_Item]:
    """The items in such an order that the first is popped first."""
    items = [_Item(value, holder, f"{what} {n}") for n, value in enumerate(values, start=1)]
    return items[::-1]


def _give_up_subtasks(item: _Item, source: _Source) -> None:
    unreadable = [item.value]
    while unreadable:
        lost = unreadable.pop()
        subtasks = lost.get("subtasks") if isinstance(lost, dict) else None
        if isinstance(subtasks, list):
            unreadable += subtasks
            source.records_read += len(subtasks)
            source.problems += [Problem(item.where, "subtask of an unreadable task")] * len(
                subtasks
            )


def _entry(tag: str, item: _Item, entries: Mapping[str, _Entry], source: _Source) -> _Entry:
    if not isinstance(item.value, dict):
        raise RecordUnreadable("not a JSON object")
    number = _id(item.value.get("id"))
    if number is None:
        raise RecordUnreadable("no id")
    path = stated = _within(item.holder, number)
    copies = 1
    while path in entries:
        copies += 1
        path = f"{stated}~{copies}"
    record = Record(source.reserve(f"{tag}/{path}"), item.value, source.notes)
    if copies > 1:
        record.note(f"{stated} is the id of an earlier task of the tag")
    return _Entry(path, item.holder, record)


def _id(value: object) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value.strip() or None if isinstance(value, str) else None


def _within(holder: _Entry | None, number: str) -> str:
    if holder is None or number.startswith(f"{holder.path}."):
        return number
    return f"{holder.path}.{number}"


def _edges(tag: str, entry: _Entry, entries: Mapping[str, _Entry]) -> list[SourceEdge]:
    edges = []
    for value in entry.record.entries(DEPENDENCIES):
        stated = _id(value)
        if stated is None:
            edges.append(SourceEdge(DEPENDENCIES, entry.record.ref, "", outcome="malformed"))
            continue
        sibling = stated if "." in stated else _within(entry.holder, stated)
        path = next((known for known in (sibling, stated) if known in entries), sibling)
        depends_on = entries[path].record.ref if path in entries else external_ref(f"{tag}/{path}")
        edges.append(SourceEdge(DEPENDENCIES, entry.record.ref, depends_on))
    return edges


def _phase(ref: str, tag: str, content: Mapping[str, object], source: _Source) -> PlannedPhase:
    metadata = content.get("metadata")
    record = Record(ref, metadata if isinstance(metadata, dict) else {}, source.notes)
    if ref != tag:
        record.note("the name of the tag was changed to one that can be stored")
    about = tag_description(record)
    source.not_kept += record.not_kept(DERIVED)
    source.not_kept += Record(ref, content, []).not_kept({"tasks", "metadata"})
    return PlannedPhase(ref, ref, about)


def _task(entry: _Entry, phase_ref: str, holder: PlannedTask | None) -> PlannedTask:
    record = entry.record
    status, reason = state(record)
    return PlannedTask(
        ref=record.ref,
        name=record.name(),
        phase_ref=phase_ref,
        parent_ref=holder.ref if holder else None,
        description=description(record),
        priority=priority(record, holder.priority if holder else "medium"),
        status=status,
        blocked_reason=reason,
    )
