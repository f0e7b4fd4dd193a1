"""Queries of tasks: which there are, how many, what has been lost, what lies below one."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Integer,
    Select,
    Subquery,
    Uuid,
    bindparam,
    delete,
    func,
    literal_column,
    select,
    true,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage import (
    Listing,
    columns,
    contains,
    either,
    entity_from,
    equal,
    gone_with,
    present,
)
from contracts.planning.tasks import ListTasks, Task, TaskQueue
from persistence.planning.tables import task
from persistence.planning.task_graph import TASK_GRAPH
from persistence.planning.task_readiness import READY

# Written into the text: a plan for any value of a parameter could neither use the partial indexes
# nor know how many rows have the status.
_IN_PROGRESS = task.c.status == literal_column("'in_progress'")

_IDS = bindparam("ids", type_=ARRAY(Uuid))

Listing(
    ListTasks,
    {
        **equal(
            task,
            *("initiative_id", "parent_task_id", "status", "category", "priority", "claimed_by"),
        ),
        # With what is below its tasks and has no phase of its own.
        "phase_id": task.c.in_phase_id == bindparam("phase_id", type_=Uuid),
        "ready": either(READY),
        "search": contains("search", task.c.name, task.c.description),
    },
)


_LOCK_EXPIRED = (
    columns(Task)
    .where(_IN_PROGRESS, task.c.lease_expires_at < bindparam("now"))
    .order_by(task.c.lease_expires_at, task.c.id)
    .limit(bindparam("limit", type_=Integer))
    .with_for_update(key_share=True, skip_locked=True)
)


async def lock_expired(db: AsyncConnection, *, now: datetime, limit: int) -> list[Task]:
    """Lock tasks whose lease is over, the longest over first; what is in work is passed over."""
    rows = await db.execute(_LOCK_EXPIRED, {"now": now, "limit": limit})
    return [entity_from(Task, row) for row in rows]


async def delete_all(db: AsyncConnection, ids: Collection[UUID]) -> int:
    """Delete these tasks; returns how many dependencies went along."""
    dependencies = await TASK_GRAPH.count(db, ids)
    await db.execute(delete(task).where(task.c.id == func.any(_IDS)), {"ids": list(ids)})
    return dependencies


def _counted(name: str, *where: ColumnElement[bool]) -> Subquery:
    """By two indexes: one of what is ready, one of all statuses."""
    ready = select(func.count()).select_from(task).where(READY, *where).scalar_subquery()
    counts = [
        func.count().filter(task.c.status == literal_column(f"'{status}'")).label(status)
        for status in ("pending", "in_progress", "blocked", "completed")
    ]
    return select(ready.label("ready"), *counts).select_from(task).where(*where).subquery(name)


@cache
def _queue(*, in_initiative: bool) -> Select[*tuple[Any, ...]]:
    """Of all tasks those that are gone are taken off: the indexes do not say of which each is."""
    if in_initiative:
        mine = task.c.initiative_id == bindparam("initiative_id", type_=Uuid)
        return select(_counted("mine", mine, *present(Task)))
    every, gone = _counted("every"), _counted("gone", *gone_with(Task))
    left = ((each - gone.c[each.name]).label(each.name) for each in every.c)
    return select(*left).select_from(every.join(gone, true()))


async def count_queue(db: AsyncConnection, initiative_id: UUID | None) -> TaskQueue:
    """How many tasks are in which state."""
    statement = _queue(in_initiative=initiative_id is not None)
    row = (await db.execute(statement, {"initiative_id": initiative_id})).one()
    return TaskQueue(
        ready=row.ready,
        waiting=row.pending - row.ready,
        in_progress=row.in_progress,
        blocked=row.blocked,
        completed=row.completed,
    )
