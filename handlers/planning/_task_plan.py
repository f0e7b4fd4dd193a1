"""Many tasks at once, which name each other by references of the request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import Entity, InvalidReference
from bus.kit.cycles import find_cycle
from bus.storage import entities as _entities
from contracts.planning.initiatives import Initiative
from contracts.planning.phases import Phase
from contracts.planning.tasks import DifferentInitiatives, NewTaskItem, Task
from handlers.planning._task_order import circle, refuse_circles
from handlers.planning.task_rules import new_task
from persistence.planning.task_order import ORDER, Kind, Node

E = TypeVar("E", bound=Entity)


@dataclass
class PlannedTask:
    """An item whose references have become ids."""

    item: NewTaskItem
    id: UUID
    parent_id: UUID | None
    depends_on: dict[UUID, str]
    """The field that names each."""


def plan(items: Sequence[NewTaskItem], first_id: UUID) -> list[PlannedTask]:
    """The items with ids for references; refuses what names nothing or goes round in a circle."""
    ids = [item.id or UUID(int=first_id.int + n) for n, item in enumerate(items)]
    named = {item.ref: id_ for item, id_ in zip(items, ids, strict=True) if item.ref is not None}
    planned = []
    for n, (item, id_) in enumerate(zip(items, ids, strict=True)):
        depends_on = {
            _resolve(ref, named, field := f"items.{n}.depends_on.{m}"): field
            for m, ref in enumerate(item.depends_on)
        }
        parent_id = item.parent_task_id
        if item.parent is not None:
            if item.parent not in named:
                raise InvalidReference(field=f"items.{n}.parent", entity="task")
            parent_id = named[item.parent]
        planned.append(PlannedTask(item, id_, parent_id, depends_on))
    _refuse_cycles(planned)
    return planned


async def build(
    db: AsyncConnection, planned: Sequence[PlannedTask], *, now: datetime
) -> list[Task]:
    """The tasks of a plan; what exists already and is named by it is locked."""
    phases = await _load(db, Phase, (one.item.phase_id for one in planned))
    initiatives = await _load(db, Initiative, (one.item.initiative_id for one in planned))
    new = {one.id for one in planned}
    related = {id_ for one in planned for id_ in (*one.depends_on, one.parent_id) if id_}
    # Locked, so that none of them can be completed, unseen, while tasks are made to wait for it.
    tasks = await _entities.lock(db, Task, related - new) if related - new else {}
    made: dict[UUID, Task] = {}
    for n, one in _parents_first(planned):
        field = f"items.{n}."
        made[one.id] = tasks[one.id] = new_task(
            one.item,
            _named(phases, one.item.phase_id, field + "phase_id", "phase"),
            _named(initiatives, one.item.initiative_id, field + "initiative_id", "initiative"),
            _named(tasks, one.parent_id, field + "parent_task_id", "task"),
            id_=one.id,
            now=now,
        )
    for one in planned:
        _check_dependencies(one, tasks)
    return [made[one.id] for one in planned]


def _resolve(ref: str, named: dict[str, UUID], field: str) -> UUID:
    if ref in named:
        return named[ref]
    try:
        return UUID(ref)
    except ValueError:
        raise InvalidReference(field=field, entity="task") from None


async def refuse_circles_over_phases(
    db: AsyncConnection, planned: Sequence[PlannedTask], made: Sequence[Task]
) -> None:
    """Refuse what was added if it closes a circle with what was there.

    Nothing that was there depends on what is new, but a phase may wait for the phase that it is in.
    So what waits only for tasks of its own phase closes no circle.
    """
    new = {task.id: task for task in made}
    concerned = [one for one in planned if _may_leave_its_phase(one, new)]
    if not concerned:
        return
    for initiative_id in sorted({new[one.id].initiative_id for one in concerned}, key=str):
        await ORDER.lock(db, initiative_id)

    await refuse_circles(db, "task", [Node("task", one.id) for one in concerned], names(planned))


def names(planned: Iterable[PlannedTask]) -> dict[UUID, str | UUID]:
    """What the request calls the tasks that it makes."""
    return {one.id: one.item.ref or one.id for one in planned}


def _may_leave_its_phase(one: PlannedTask, new: Mapping[UUID, Task]) -> bool:
    """Whether a task is in a phase and waits for anything that may be elsewhere."""
    task, related = new[one.id], [*one.depends_on, *filter(None, [one.parent_id])]
    if task.initiative_id is None or not related:
        return False
    return any(id_ not in new or _place(new, new[id_]) != _place(new, task) for id_ in related)


def _place(new: Mapping[UUID, Task], task: Task) -> UUID | None:
    """The phase that a new task is in, or the task above it that says where it is."""
    while task.phase_id is None and task.parent_task_id and task.parent_task_id in new:
        task = new[task.parent_task_id]
    return task.phase_id or task.parent_task_id


def _refuse_cycles(planned: Sequence[PlannedTask]) -> None:
    below = {one.id: [one.parent_id] if one.parent_id else [] for one in planned}
    called = names(planned)
    if cycle := find_cycle(below):
        raise circle("task", [Node("task", id_) for id_ in cycle], called)
    waits: dict[Node, list[Node]] = {}
    kinds: tuple[Kind, ...] = ("task", "gate")
    for one in planned:
        above = [Node("gate", one.parent_id)] if one.parent_id else []
        for kind in kinds:
            needed = [Node("task", id_) for id_ in one.depends_on]
            waits[Node(kind, one.id)] = needed + above
    if nodes := find_cycle(waits):
        raise circle("task", nodes, called)


def _parents_first(planned: Sequence[PlannedTask]) -> list[tuple[int, PlannedTask]]:
    """The items with their numbers, each parent before its children."""
    numbers = {one.id: n for n, one in enumerate(planned)}
    placed: dict[int, PlannedTask] = {}
    for n in range(len(planned)):
        lineage: list[int] = []
        ancestor: int | None = n
        while ancestor is not None and ancestor not in placed:
            lineage.append(ancestor)
            parent_id = planned[ancestor].parent_id
            ancestor = numbers.get(parent_id) if parent_id else None
        placed |= {number: planned[number] for number in reversed(lineage)}
    return list(placed.items())


def _check_dependencies(one: PlannedTask, tasks: dict[UUID, Task]) -> None:
    for id_, field in one.depends_on.items():
        if id_ not in tasks:
            raise InvalidReference(field=field, entity="task")
        if tasks[id_].initiative_id != tasks[one.id].initiative_id:
            raise DifferentInitiatives(entity="task", id=one.id, other_id=id_)


async def _load(db: AsyncConnection, entity: type[E], ids: Iterable[UUID | None]) -> dict[UUID, E]:
    wanted = {id_ for id_ in ids if id_ is not None}
    return await _entities.load(db, entity, wanted) if wanted else {}


def _named(found: dict[UUID, E], id_: UUID | None, field: str, noun: str) -> E | None:
    if id_ is None:
        return None
    if id_ not in found:
        raise InvalidReference(field=field, entity=noun)
    return found[id_]
