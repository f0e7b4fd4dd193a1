"""Queries of what surrounds a task, in one statement with the task itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, FromClause, Table, Uuid, bindparam, func, select
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.planning.tasks import ClaimedTask, Task, TaskContext
from persistence._entities import columns, entity_from
from persistence.planning.tables import initiative, phase, task, task_dependency
from persistence.planning.tasks import READY

MAX_RELATED = 100
"""How many dependencies and children are given along."""

MAX_SUMMARY = 4_000
"""How much of a related task's summary is given along, in characters."""

_other = task.alias("related")


def _object(source: FromClause, *names: str) -> ColumnElement[Any]:
    pairs: list[Any] = [part for name in names for part in (name, source.c[name])]
    return func.json_build_object(*pairs, type_=JSON)


def _one(source: Table, condition: ColumnElement[bool], *names: str) -> ColumnElement[Any]:
    found = select(_object(source, *names)).where(condition).correlate(task)
    return found.scalar_subquery().label(source.name)


def _brief() -> ColumnElement[Any]:
    return func.json_build_object(
        "id",
        _other.c.id,
        "name",
        _other.c.name,
        "status",
        _other.c.status,
        "summary",
        func.left(_other.c.summary, MAX_SUMMARY),
        type_=JSON,
    )


def _several(name: str, condition: ColumnElement[bool]) -> ColumnElement[Any]:
    found = (
        select(_brief())
        .where(condition)
        .order_by(_other.c.position, _other.c.created_at, _other.c.id)
        .limit(MAX_RELATED)
        .correlate(task)
    )
    return func.to_json(func.array(found.scalar_subquery()), type_=JSON).label(name)


_AROUND = (
    _one(phase, phase.c.id == task.c.phase_id, "id", "name", "status", "content"),
    _one(
        initiative,
        initiative.c.id == task.c.initiative_id,
        *("id", "name", "status", "branch", "execution_mode"),
    ),
    _several(
        "dependencies",
        _other.c.id.in_(
            select(task_dependency.c.depends_on_task_id)
            .where(task_dependency.c.task_id == task.c.id)
            .correlate(task)
        ),
    ),
)

_READY_WITH_CONTEXT = (
    columns(Task)
    .add_columns(*_AROUND)
    .where(READY, task.c.id == func.any(bindparam("ids", type_=ARRAY(Uuid))))
)

_WITH_CONTEXT = (
    columns(Task)
    .add_columns(
        *_AROUND,
        select(_brief())
        .where(_other.c.id == task.c.parent_task_id)
        .correlate(task)
        .scalar_subquery()
        .label("parent"),
        _several("children", _other.c.parent_task_id == task.c.id),
    )
    .where(task.c.id == bindparam("id", type_=Uuid))
)


async def ready_with_context(db: AsyncConnection, ids: Iterable[UUID]) -> dict[UUID, ClaimedTask]:
    """Those of these tasks that are ready, each with what an agent needs to begin."""
    rows = await db.execute(_READY_WITH_CONTEXT, {"ids": list(ids)})
    return {row.id: ClaimedTask.model_validate(_reply(row)) for row in rows}


async def with_context(db: AsyncConnection, id_: UUID) -> TaskContext:
    """The task with everything around it, or ``TaskNotFound``."""
    row = (await db.execute(_WITH_CONTEXT, {"id": id_})).one_or_none()
    if row is None:
        raise Task.not_found(id=id_)
    return TaskContext.model_validate(_reply(row))


def _reply(row: Any) -> dict[str, Any]:
    fields = dict(row._mapping)  # noqa: SLF001  SQLAlchemy's public name
    return {
        "task": entity_from(Task, row),
        "phase": fields.pop("phases"),
        "initiative": fields.pop("initiatives"),
        **fields,
    }
