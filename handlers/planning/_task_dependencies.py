"""What tasks wait for, and when they no longer have to."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.planning.tasks import (
    AddTaskDependency,
    RemoveTaskDependency,
    Task,
    TaskContents,
    TaskReady,
)
from handlers._shapes import Emit
from persistence import _entities
from persistence.planning import _order, tasks


async def lock_ends(
    db: AsyncConnection, command: AddTaskDependency | RemoveTaskDependency
) -> tuple[Task, Task | None]:
    """The task and what it depends on, locked; nobody else changes dependencies near them.

    What is depended on comes first, as it does when its completion makes the task ready.
    """
    task = await _entities.get(db, Task, command.id)
    await _order.lock(db, task.initiative_id)
    others = await _entities.lock(db, Task, [command.depends_on_task_id])
    task = await _entities.get_locked(db, Task, command.id)
    return task, others.get(command.depends_on_task_id)


async def delete_tree(db: AsyncConnection, task: Task) -> tuple[TaskContents, list[UUID]]:
    """Delete a task and everything below it; returns what went along, and who waited for it."""
    tree = await tasks.tree(db, task.id)
    unfinished = [id_ for id_, status in tree.items() if status != "completed"]
    waiting = await tasks.lock_pending_dependents(db, unfinished)

    dependencies = await tasks.delete_all(db, tree)

    return TaskContents(children=len(tree) - 1, dependencies=dependencies), waiting


async def tell_ready(ids: Collection[UUID], *, db: AsyncConnection, emit: Emit) -> None:
    """Tell of those of these locked tasks that can be claimed."""
    if not ids:
        return
    for task in await tasks.ready_among(db, ids):
        emit(TaskReady(task=task))
