"""Queries of tasks: what is ready, what waits, what has been lost."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    Integer,
    Select,
    Uuid,
    and_,
    bindparam,
    delete,
    exists,
    func,
    literal_column,
    not_,
    or_,
    select,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts._declare import Entity, Page
from contracts.planning.tasks import ListTasks, Task, TaskQueue
from persistence._driver import compiled, fetch
from persistence._entities import columns, entity_from
from persistence._filters import contains, either, equal
from persistence._paging import Listing
from persistence._tables import TABLES
from persistence.planning.tables import phase, task, task_dependency

_other = task.alias("other")

# Written into the text: a plan for any value of a parameter could neither use the partial indexes
# nor know how many rows have the status.
_PENDING = task.c.status == literal_column("'pending'")
_RUNNING = phase.c.status == literal_column("'in_progress'")
_IN_PROGRESS = task.c.status == literal_column("'in_progress'")

WAITING = exists().where(
    task_dependency.c.task_id == task.c.id,
    _other.c.id == task_dependency.c.depends_on_task_id,
    _other.c.status != literal_column("'completed'"),
)
"""Whether a task depends on one that is not completed."""

READY = and_(
    _PENDING,
    or_(
        task.c.phase_id.is_(None),
        exists().where(
            phase.c.id == task.c.phase_id, phase.c.status == literal_column("'in_progress'")
        ),
    ),
    not_(WAITING),
)
"""Whether a task can be claimed: pending, nothing left to wait for, its phase in progress."""

_IDS = bindparam("ids", type_=ARRAY(Uuid))

_LIST = Listing(
    Task,
    {
        **equal(
            task,
            *("phase_id", "initiative_id", "parent_task_id"),
            *("status", "category", "priority", "claimed_by"),
        ),
        "ready": either(READY),
        "search": contains("search", task.c.name, task.c.description),
    },
)


async def page(db: AsyncConnection, query: ListTasks) -> Page[Task]:
    """A page of the tasks that pass the filters."""
    return await _LIST.page(db, query)


async def exists_one(db: AsyncConnection, entity: type[Entity], id_: UUID) -> bool:
    """Whether there is an entity with this id."""
    found = await db.execute(select(exists().where(TABLES[entity].c.id == id_)))
    return bool(found.scalar_one())


_pending_dependents = select(task.c.id).where(
    _PENDING,
    task.c.id.in_(
        select(task_dependency.c.task_id).where(
            task_dependency.c.depends_on_task_id == func.any(_IDS)
        )
    ),
)
PENDING_DEPENDENTS = compiled(_pending_dependents)
"""The pending tasks that depend on any of ``ids``."""
_LOCK_DEPENDENTS = compiled(_pending_dependents.order_by(task.c.id).with_for_update(key_share=True))

_READY_AMONG = columns(Task).where(READY, task.c.id == func.any(_IDS)).order_by(task.c.id)

_LOCK_EXPIRED = (
    columns(Task)
    .where(_IN_PROGRESS, task.c.lease_expires_at < bindparam("now"))
    .order_by(task.c.lease_expires_at, task.c.id)
    .limit(bindparam("limit", type_=Integer))
    .with_for_update(key_share=True, skip_locked=True)
)


async def lock_pending_dependents(db: AsyncConnection, ids: Iterable[UUID]) -> list[UUID]:
    """Lock the pending tasks that depend on any of these, in the order of their ids."""
    return [row["id"] for row in await fetch(db, _LOCK_DEPENDENTS, {"ids": list(ids)})]


async def ready_among(db: AsyncConnection, ids: Iterable[UUID]) -> list[Task]:
    """Those of these tasks that are ready."""
    return [entity_from(Task, row) for row in await db.execute(_READY_AMONG, {"ids": list(ids)})]


async def lock_expired(db: AsyncConnection, *, now: datetime, limit: int) -> list[Task]:
    """Lock tasks whose lease is over, the longest over first; what is in work is passed over."""
    rows = await db.execute(_LOCK_EXPIRED, {"now": now, "limit": limit})
    return [entity_from(Task, row) for row in rows]


_below = select(task.c.id).where(task.c.id == bindparam("id", type_=Uuid)).cte(recursive=True)
_below = _below.union(select(_other.c.id).where(_other.c.parent_task_id == _below.c.id))
_TREE = select(task.c.id, task.c.status).where(task.c.id.in_(select(_below.c.id)))
_COUNT_EDGES = select(func.count()).where(
    or_(
        task_dependency.c.task_id == func.any(_IDS),
        task_dependency.c.depends_on_task_id == func.any(_IDS),
    )
)


async def tree(db: AsyncConnection, id_: UUID) -> dict[UUID, str]:
    """A task and everything below it, each with its status."""
    return {row.id: row.status for row in await db.execute(_TREE, {"id": id_})}


async def delete_all(db: AsyncConnection, ids: Iterable[UUID]) -> int:
    """Delete these tasks; returns how many dependencies went along."""
    values = {"ids": list(ids)}
    dependencies = (await db.execute(_COUNT_EDGES, values)).scalar_one()
    await db.execute(delete(task).where(task.c.id == func.any(_IDS)), values)
    return int(dependencies)


@cache
def _queue(*, in_initiative: bool) -> Select[*tuple[Any, ...]]:
    """Counts by way of joins: asking task by task what it waits for is slow for all of them."""
    waiting = select(task_dependency.c.task_id).join(
        _other, _other.c.id == task_dependency.c.depends_on_task_id
    )
    waiting = waiting.where(_other.c.status != "completed").distinct()
    mine = bindparam("initiative_id", type_=Uuid)
    if in_initiative:
        waiting = waiting.where(_other.c.initiative_id == mine)
    held = waiting.subquery()
    ready = and_(
        held.c.task_id.is_(None),
        or_(task.c.phase_id.is_(None), _RUNNING),
    )
    counts = [
        func.count().filter(_PENDING, ready).label("ready"),
        func.count().filter(_PENDING, not_(ready)).label("waiting"),
        *(
            func.count().filter(task.c.status == status).label(status)
            for status in ("in_progress", "blocked", "completed")
        ),
    ]
    joined = task.outerjoin(phase, phase.c.id == task.c.phase_id)
    statement = select(*counts).select_from(joined.outerjoin(held, held.c.task_id == task.c.id))
    return statement.where(task.c.initiative_id == mine) if in_initiative else statement


async def count_queue(db: AsyncConnection, initiative_id: UUID | None) -> TaskQueue:
    """How many tasks are in which state."""
    statement = _queue(in_initiative=initiative_id is not None)
    row = (await db.execute(statement, {"initiative_id": initiative_id})).one()
    return TaskQueue.model_validate(dict(row._mapping))  # noqa: SLF001  SQLAlchemy's public name
