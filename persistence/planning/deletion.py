"""What goes along when something is deleted: the tasks that belong to it and all below them."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import CTE, ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from persistence.planning.tables import task


async def count_tasks(db: AsyncConnection, belonging: ColumnElement[bool]) -> int:
    """How many tasks fulfil this, those below them included."""
    counted = await db.execute(select(func.count()).select_from(_tree(belonging)))
    return int(counted.scalar_one())


async def unfinished_tasks(db: AsyncConnection, belonging: ColumnElement[bool]) -> list[UUID]:
    """The tasks that fulfil this or are below one that does, and are not completed."""
    going = select(_tree(belonging).c.id)
    unfinished = select(task.c.id).where(task.c.id.in_(going), task.c.status != "completed")
    return list((await db.execute(unfinished)).scalars())


def _tree(belonging: ColumnElement[bool]) -> CTE:
    below = select(task.c.id).where(belonging).cte("below", recursive=True)
    child = task.alias("child")
    return below.union(select(child.c.id).where(child.c.parent_task_id == below.c.id))
