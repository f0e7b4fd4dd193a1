"""What is new as requests, small enough, and tasks in an order in which none begins too early."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from uuid import UUID

from contracts.planning.phases import CreatePhase
from contracts.planning.tasks import CreateManyTasks, NewTaskItem
from fleetbus.importing.changes import content_of, content_of_phase
from fleetbus.importing.plan import Dependency, PlannedPhase, PlannedTask
from fleetbus.importing.records import MAX_REASON

MAX_ITEMS = 500
MAX_DEPENDENCIES = 200
ENVELOPE = 8 * 1024
"""Bytes kept free in a message for its headers and what encloses the items."""


@dataclass(frozen=True, slots=True)
class Ids:
    """The ids of everything in a plan, by ref, whether it is there or about to be."""

    initiative: UUID
    phases: Mapping[str, UUID]
    tasks: Mapping[str, UUID]
    positions: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class PackedRequest:
    """One request, and the dependencies that it brings along."""

    request: CreateManyTasks
    dependencies: tuple[Dependency, ...]


def new_phase(phase: PlannedPhase, ids: Ids, *, waits: bool) -> CreatePhase:
    """A phase that is in progress at once, unless it is over, blocked or waits for another one."""
    status = phase.status if phase.status != "pending" or waits else "in_progress"
    reason = phase.blocked_reason or "Blocked in the plan"
    return CreatePhase(
        id=ids.phases[phase.ref],
        initiative_id=ids.initiative,
        name=phase.name,
        content=content_of_phase(phase),
        status=status,
        blocked_reason=reason[:MAX_REASON] if status == "blocked" else None,
        position=ids.positions[phase.ref],
        external_ref=phase.ref,
    )


def in_order(tasks: Iterable[PlannedTask], dependencies: Iterable[Dependency]) -> list[PlannedTask]:
    """Each task after its parent and after what it waits for.

    A task that is there before what it waits for could be claimed in between. Where a parent waits
    for something below it no such order exists; then these tasks come last, parents first.
    """
    by_ref = {task.ref: task for task in tasks}
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for task in by_ref.values():
        sorter.add(task.ref, *([task.parent_ref] if task.parent_ref in by_ref else []))
    for edge in dependencies:
        if edge.ref in by_ref and edge.depends_on in by_ref:
            sorter.add(edge.ref, edge.depends_on)
    order: dict[str, None] = {}
    with suppress(CycleError):
        sorter.prepare()
    while ready := sorter.get_ready():
        order |= dict.fromkeys(ready)
        sorter.done(*ready)
    return [by_ref[ref] for ref in {**order, **dict.fromkeys(by_ref)}]


def pack(
    tasks: Sequence[PlannedTask],
    dependencies: Iterable[Dependency],
    ids: Ids,
    max_payload: int,
) -> Iterator[PackedRequest]:
    """Divide tasks into requests in their order, with dependencies on what is there by then."""
    awaited: defaultdict[str, list[str]] = defaultdict(list)
    for edge in dependencies:
        awaited[edge.ref].append(edge.depends_on)
    placed = ids.tasks.keys() - {task.ref for task in tasks}
    for group in _groups(tasks, awaited, ids, max_payload - ENVELOPE):
        local = {task.ref for task in group}
        placed |= local
        items, brought = [], []
        for task in group:
            named = [ref for ref in awaited[task.ref] if ref in placed][:MAX_DEPENDENCIES]
            items.append(_item(task, named, ids, local))
            brought += [Dependency(task.ref, ref) for ref in named]
        yield PackedRequest(CreateManyTasks(items=items), tuple(brought))


def without(request: CreateManyTasks, ref: str, awaited: UUID) -> CreateManyTasks:
    """The request in which one task does not wait for another one."""
    items = []
    for item in request.items:
        if item.external_ref == ref:
            named = [one for one in item.depends_on if str(one) != str(awaited)]
            items.append(item.model_copy(update={"depends_on": named}))
        else:
            items.append(item)
    return request.model_copy(update={"items": items})


def _groups(
    tasks: Iterable[PlannedTask], awaited: Mapping[str, list[str]], ids: Ids, room: int
) -> Iterator[list[PlannedTask]]:
    group: list[PlannedTask] = []
    size = 0
    for task in tasks:
        item = _item(task, awaited.get(task.ref, [])[:MAX_DEPENDENCIES], ids, set())
        length = len(item.__pydantic_serializer__.to_json(item, exclude_unset=True)) + 1
        if group and (len(group) == MAX_ITEMS or size + length > room):
            yield group
            group, size = [], 0
        group.append(task)
        size += length
    if group:
        yield group


def _item(
    task: PlannedTask, awaited: Iterable[str], ids: Ids, local: AbstractSet[str]
) -> NewTaskItem:
    own = ids.tasks[task.ref]
    fields = content_of(task) | {
        "id": own,
        # Named by its id, a task is found alike by items of its own request and of later ones.
        "ref": str(own),
        "initiative_id": ids.initiative,
        "position": ids.positions[task.ref],
        "external_ref": task.ref,
        "depends_on": [str(ids.tasks[ref]) for ref in awaited],
    }
    if task.phase_ref is not None:
        fields["phase_id"] = ids.phases[task.phase_ref]
    if task.parent_ref is not None:
        parent = ids.tasks[task.parent_ref]
        fields |= (
            {"parent": str(parent)} if task.parent_ref in local else {"parent_task_id": parent}
        )
    if task.status == "completed":
        fields |= {"status": "completed", "summary": task.summary}
    elif task.status == "blocked":
        reason = task.blocked_reason or "Blocked in the plan"
        fields |= {"status": "blocked", "blocked_reason": reason[:MAX_REASON]}
    return NewTaskItem(**fields)
