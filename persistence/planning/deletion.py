"""Deleting one entity: locked against new references first, so that what goes along is counted."""

from __future__ import annotations

from typing import TypeVar
from uuid import UUID

from sqlalchemy import CTE, ColumnElement, delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import Entity
from bus.storage import TABLES, columns, entity_from
from persistence.planning.tables import task

E = TypeVar("E", bound=Entity)


async def lock_for_deletion(db: AsyncConnection, entity: type[E], id_: UUID) -> E:
    """The entity, locked so that nothing can refer to it any more, or its own ``…NotFound``.

    What refers to it, and is of a context above, is asked for only when the transaction ends: a
    reaction to its deletion lets it go.
    """
    statement = columns(entity).where(TABLES[entity].c.id == id_).with_for_update()
    row = (await db.execute(statement)).one_or_none()
    if row is None:
        raise entity.not_found(id=id_)
    return entity_from(entity, row)


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


async def delete_entity(db: AsyncConnection, entity: Entity) -> None:
    """Delete a locked entity and whatever belongs to it."""
    table = TABLES[type(entity)]
    await db.execute(delete(table).where(table.c.id == entity.id))
