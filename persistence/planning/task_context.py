"""Queries of what surrounds a task, in one statement with the task itself."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from asyncpg import Record
from sqlalchemy import ColumnElement, Table, Uuid, bindparam, func, literal_column, select
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage import columns, compiled, entity_from, fetch
from contracts.planning.tasks import ClaimedTask, Task, TaskContext
from persistence.planning.tables import initiative, phase, task
from persistence.planning.task_graph import TASK_GRAPH

MAX_RELATED = 100
"""How many dependencies and children are given along."""

MAX_SUMMARY = 4_000
"""How much of a related task's summary is given along, in characters."""

_other = task.alias("related")


def _object(**values: ColumnElement[Any]) -> ColumnElement[Any]:
    pairs = [
        part for name, value in values.items() for part in (literal_column(f"'{name}'"), value)
    ]
    return func.json_build_object(*pairs, type_=JSON)


def _one(source: Table, condition: ColumnElement[bool], *names: str) -> ColumnElement[Any]:
    found = select(_object(**{name: source.c[name] for name in names}))
    return found.where(condition).correlate(task).scalar_subquery().label(source.name)


def _brief() -> ColumnElement[Any]:
    return _object(
        id=_other.c.id,
        name=_other.c.name,
        status=_other.c.status,
        summary=func.left(_other.c.summary, literal_column(str(MAX_SUMMARY))),
    )


def _several(name: str, condition: ColumnElement[bool]) -> ColumnElement[Any]:
    found = (
        select(_brief())
        .where(condition)
        .order_by(_other.c.position, _other.c.created_at, _other.c.id)
        .limit(literal_column(str(MAX_RELATED)))
        .correlate(task)
    )
    return func.to_json(func.array(found.scalar_subquery()), type_=JSON).label(name)


AROUND = (
    _one(phase, phase.c.id == task.c.in_phase_id, "id", "name", "status", "content"),
    _one(
        initiative,
        initiative.c.id == task.c.initiative_id,
        *("id", "name", "status", "branch", "execution_mode"),
    ),
    _several(
        "dependencies",
        _other.c.id.in_(TASK_GRAPH.dependencies_of(task.c.id).correlate(task)),
    ),
)
"""What is given along with a task that is claimed."""

_WITH_CONTEXT = compiled(
    columns(Task)
    .add_columns(
        *AROUND,
        select(_brief())
        .where(_other.c.id == task.c.parent_task_id)
        .correlate(task)
        .scalar_subquery()
        .label("parent"),
        _several("children", _other.c.parent_task_id == task.c.id),
    )
    .where(task.c.id == bindparam("id", type_=Uuid))
)


async def with_context(db: AsyncConnection, id_: UUID) -> TaskContext:
    """The task with everything around it, or ``TaskNotFound``."""
    rows = await fetch(db, _WITH_CONTEXT, {"id": id_})
    if not rows:
        raise Task.not_found(id=id_)
    (row,) = rows
    return TaskContext(**_around(row), parent=row["parent"], children=row["children"])


def claimed_task(row: Record) -> ClaimedTask:
    """The task that a row of its columns and of ``AROUND`` holds, with what it needs."""
    return ClaimedTask(**_around(row))


def _around(row: Record) -> dict[str, Any]:
    return {
        "task": entity_from(Task, row),
        "phase": row["phases"],
        "initiative": row["initiatives"],
        "dependencies": row["dependencies"],
    }
