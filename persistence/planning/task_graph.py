"""Queries of what tasks depend on."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    Text,
    Uuid,
    bindparam,
    cast,
    column,
    delete,
    func,
    insert,
    select,
)
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage import Listing, compiled, execute, fetch
from contracts.planning.tasks import ListTaskDependencies, ListTaskDependents, Task
from persistence.planning.tables import task, task_dependency

_TASK = bindparam("task", type_=Uuid)
_DEPENDS_ON = bindparam("depends_on", type_=Uuid)
_THIS_EDGE = (
    task_dependency.c.task_id == _TASK,
    task_dependency.c.depends_on_task_id == _DEPENDS_ON,
)

_pairs = (
    func.json_to_recordset(cast(bindparam("pairs", type_=Text), JSON))
    .table_valued(column("task_id", Uuid), column("depends_on", Uuid), name="p")
    .render_derived(with_types=True)
)
_ADD = insert(task_dependency).from_select(
    ["id", "task_id", "depends_on_task_id"],
    select(func.uuidv7(), _pairs.c.task_id, _pairs.c.depends_on),
)

_IDS = bindparam("ids", type_=ARRAY(Uuid))
_child = task.alias("child")
_below = select(task.c.id).where(task.c.id == func.any(_IDS)).cte("below", recursive=True)
_below = _below.union(select(_child.c.id).where(_child.c.parent_task_id == _below.c.id))
_TREES = compiled(select(_below.c.id))
_LOCK_FOR_DELETION = compiled(
    select(task.c.id).where(task.c.id == func.any(_IDS)).order_by(task.c.id).with_for_update()
)
_INTO_THESE = (
    task_dependency.c.depends_on_task_id == func.any(_IDS),
    task_dependency.c.task_id != func.all(_IDS),
)
_INTO = compiled(
    select(task_dependency.c.task_id, task_dependency.c.depends_on_task_id)
    .where(*_INTO_THESE)
    .order_by(task_dependency.c.task_id, task_dependency.c.depends_on_task_id)
)
_REMOVE_INTO = compiled(
    delete(task_dependency).where(
        task_dependency.c.depends_on_task_id == func.any(_IDS),
        task_dependency.c.task_id == func.any(bindparam("others", type_=ARRAY(Uuid))),
    )
)

_ID = bindparam("id", type_=Uuid)
_EDGE = task_dependency.c
Listing(
    ListTaskDependencies,
    {"id": task.c.id.in_(select(_EDGE.depends_on_task_id).where(_EDGE.task_id == _ID))},
    within=Task,
)
Listing(
    ListTaskDependents,
    {"id": task.c.id.in_(select(_EDGE.task_id).where(_EDGE.depends_on_task_id == _ID))},
    within=Task,
)


async def add_dependencies(db: AsyncConnection, pairs: Iterable[tuple[UUID, UUID]]) -> None:
    """Let the first of each pair depend on the second."""
    rows = [{"task_id": str(one), "depends_on": str(other)} for one, other in pairs]
    if rows:
        await db.execute(_ADD, {"pairs": json.dumps(rows)})


async def remove_dependency(db: AsyncConnection, id_: UUID, depends_on: UUID) -> bool:
    """Remove a dependency; returns whether there was one."""
    removed = await db.execute(
        delete(task_dependency).where(*_THIS_EDGE), {"task": id_, "depends_on": depends_on}
    )
    return bool(removed.rowcount)


async def lock_trees(db: AsyncConnection, ids: Iterable[UUID]) -> set[UUID]:
    """These tasks and everything below them, locked for deletion: nothing more comes below them,
    and nothing new depends on them.
    """
    found = set(ids)
    locked: set[UUID] = set()
    while found - locked:
        values = {"ids": list(found - locked)}
        locked |= {row["id"] for row in await fetch(db, _LOCK_FOR_DELETION, values)}
        found = {row["id"] for row in await fetch(db, _TREES, {"ids": list(locked)})}
    return locked


async def edges_into(db: AsyncConnection, ids: Collection[UUID]) -> list[tuple[UUID, UUID]]:
    """The dependencies of other tasks on these: who depends, and on what."""
    rows = await fetch(db, _INTO, {"ids": list(ids)})
    return [(row["task_id"], row["depends_on_task_id"]) for row in rows]


async def remove_dependencies_on(
    db: AsyncConnection, ids: Collection[UUID], others: Collection[UUID]
) -> None:
    """Let these others no longer depend on any of these tasks."""
    await execute(db, _REMOVE_INTO, {"ids": list(ids), "others": list(others)})
