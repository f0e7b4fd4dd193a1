"""What waits for what, over tasks and phases: whatever would close a circle is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.handling import reaction
from contracts.planning.phases import Phase
from contracts.planning.tasks import (
    DependencyCycle,
    DifferentInitiatives,
    Named,
    PlanEntity,
    Task,
    TaskCreated,
    TaskUpdated,
    Waiting,
)
from persistence.planning import task_order as _task_order
from persistence.planning.task_order import ORDER, Kind, Node

_ENTITY: Mapping[Kind, PlanEntity] = {
    "task": "task",
    "gate": "task",
    "place": "task",
    "begun": "phase",
    "done": "phase",
}
"""What a node stands for; what is not here stands for the tasks that follow it."""

_ABOVE = {"gate", "place"}
"""A task above another one, told only where it is what it depends on that is waited for."""


def of_task(task: Task | UUID) -> list[Node]:
    """What stands for a task among what waits, to be looked for on circles."""
    id_ = task.id if isinstance(task, Task) else task
    return [Node("task", id_), Node("place", id_), Node("gate", id_)]


def of_phase(phase: Phase) -> list[Node]:
    """What stands for a phase among what waits, to be looked for on circles."""
    return [Node("begun", phase.id), Node("done", phase.id)]


async def refuse_circles(
    db: AsyncConnection,
    entity: PlanEntity,
    changed: Sequence[Node],
    names: Mapping[UUID, Named] | None = None,
) -> None:
    """Refuse what this transaction has written if something of it is on a circle.

    The order of the initiative is locked.
    """
    if found := await ORDER.circle(db, changed):
        raise circle(entity, found, names or {})


def refuse_self_and_elsewhere(entity: PlanEntity, one: Task | Phase, other: Task | Phase) -> None:
    """Refuse that something depends on itself, or on what is in another initiative."""
    if other.initiative_id != one.initiative_id:
        raise DifferentInitiatives(entity=entity, id=one.id, other_id=other.id)
    if other.id == one.id:
        itself = [Node("task", one.id)] * 2
        if entity == "phase":
            itself = [Node("begun", one.id), Node("done", one.id)]
        raise circle(entity, itself, {})


def circle(
    entity: PlanEntity, cycle: Sequence[Node], names: Mapping[UUID, Named]
) -> DependencyCycle:
    """The refusal of a circle, told as the tasks and phases along it."""
    named = [
        (_ENTITY[node.kind], node.id)
        for node, following in pairwise([*cycle, cycle[1]])
        if node.kind in _ENTITY and not (node.kind in _ABOVE and following.kind != "task")
    ]
    along = [one for one, _ in groupby(named)]
    if along[0] != along[-1] or len(along) == 1:
        along.append(along[0])
    nodes = [Waiting(entity=kind, id=names.get(id_, id_)) for kind, id_ in along]
    return DependencyCycle(entity=entity, path=[node.id for node in nodes], nodes=nodes)


def _between_phases(event: TaskCreated | TaskUpdated) -> bool:
    task = event.task
    if isinstance(event, TaskUpdated):
        return event.moved
    return task.phase_id is not None and task.parent_task_id is not None


@reaction(about=_between_phases)
async def refuse_circles_of_phases(
    events: Sequence[TaskCreated | TaskUpdated], *, db: AsyncConnection
) -> None:
    """A task that comes into a phase may wait for one that waits for this phase."""
    moved = {event.task.id for event in events if isinstance(event, TaskUpdated)}
    made = {event.task.id for event in events} - moved
    # A task that waits for nothing but its parent's phase closes no circle that was not there.
    concerned = moved | await _task_order.elsewhere(db, made)
    tasks = {event.task.id: event.task for event in events if event.task.id in concerned}
    if not tasks:
        return
    for initiative_id in sorted({task.initiative_id for task in tasks.values()}, key=str):
        await ORDER.lock(db, initiative_id)

    below = [Node("held", id_) for id_ in moved]
    await refuse_circles(db, "task", [node for id_ in tasks for node in of_task(id_)] + below)
