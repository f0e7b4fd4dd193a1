"""What goes along when something is deleted: the tasks that belong to it and all below them."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from sqlalchemy import CTE, ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import MOST_GONE
from persistence.planning.tables import phase, task


class Going(NamedTuple):
    """How many go along, and the first of them by their ids."""

    number: int
    ids: list[UUID]


async def tasks_going(db: AsyncConnection, belonging: ColumnElement[bool]) -> Going:
    """The tasks that fulfil this, those below them included."""
    return await _going(db, _tree(belonging).c.id)


async def tasks_of(db: AsyncConnection, initiative_id: UUID) -> Going:
    """The tasks of an initiative: what is below one is of the same."""
    return await _going(db, task.c.id, task.c.initiative_id == initiative_id)


async def phases_going(db: AsyncConnection, initiative_id: UUID) -> Going:
    """The phases of an initiative."""
    return await _going(db, phase.c.id, phase.c.initiative_id == initiative_id)


async def _going(
    db: AsyncConnection, ids: ColumnElement[UUID], *where: ColumnElement[bool]
) -> Going:
    counted = select(func.count().over().label("number"), ids.label("id")).where(*where)
    rows = (await db.execute(counted.order_by(ids).limit(MOST_GONE))).all()
    return Going(rows[0].number if rows else 0, [row.id for row in rows])


def _tree(belonging: ColumnElement[bool]) -> CTE:
    below = select(task.c.id).where(belonging).cte("below", recursive=True)
    child = task.alias("child")
    return below.union(select(child.c.id).where(child.c.parent_task_id == below.c.id))
