"""What tasks wait for, and when they no longer have to."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import MOST_GONE
from bus.storage import entities as _entities
from contracts.planning.tasks import (
    AddTaskDependency,
    RemoveTaskDependency,
    Task,
    TaskContents,
    TaskDeleted,
    TaskDependencyRemoved,
)
from persistence.planning import task_trees as _task_trees
from persistence.planning import tasks
from persistence.planning.task_graph import TASK_GRAPH
from persistence.planning.task_order import ORDER


async def lock_ends(
    db: AsyncConnection, command: AddTaskDependency | RemoveTaskDependency
) -> tuple[Task, Task | None]:
    """The task and what it depends on, locked; nobody else changes dependencies near them.

    What is depended on comes first, as it does when its completion makes the task ready.
    """
    task = await _entities.get(db, Task, command.id)
    await ORDER.lock(db, task.initiative_id)
    others = await _entities.lock(db, Task, [command.depends_on_task_id])
    task = await _entities.get_locked(db, Task, command.id)
    return task, others.get(command.depends_on_task_id)


async def delete_tree(
    db: AsyncConnection, task: Task, *, now: datetime
) -> tuple[TaskDeleted, list[TaskDependencyRemoved]]:
    """Delete a task and everything below it; returns what is to be told, also of who was let go."""
    tree = await _task_trees.lock_trees(db, [task.id])
    freed = await let_go(db, tree, now=now)

    dependencies = await tasks.delete_all(db, tree)

    children = sorted(id_ for id_ in tree if id_ != task.id)
    contents = TaskContents(children=len(children), dependencies=dependencies + len(freed))
    gone = task.evolve(now)
    return TaskDeleted(task=gone, deleted=contents, child_ids=children[:MOST_GONE]), freed


async def let_go(
    db: AsyncConnection, tree: Collection[UUID], *, now: datetime
) -> list[TaskDependencyRemoved]:
    """Let others depend no longer on these locked tasks, which are going to be deleted.

    That is a change of each that did so, for each dependency that it loses. Who was deleted while
    its lock was waited for has lost them already.
    """
    edges = await TASK_GRAPH.into(db, tree)
    waiting = await _entities.lock(db, Task, {one for one, _ in edges})
    removed = []
    for one, other in edges:
        if one not in waiting:
            continue
        waiting[one] = waiting[one].evolve(now)
        removed.append(TaskDependencyRemoved(task=waiting[one], depends_on_task_id=other))

    await TASK_GRAPH.remove_into(db, tree, waiting)
    await _entities.save(db, list(waiting.values()))

    return removed
