"""Deleting one entity: locked against new references first, so that what goes along is counted."""

from __future__ import annotations

from typing import NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy import CTE, ColumnElement, delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import Entity
from bus.storage import TABLES, columns, entity_from
from persistence.planning.tables import phase, task

E = TypeVar("E", bound=Entity)

TOLD_IDS = 1_000
"""So many ids of what went along a deletion tells."""


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


class Going(NamedTuple):
    """How many go along, and the first of them by their ids."""

    number: int
    ids: list[UUID]


async def tasks_going(db: AsyncConnection, belonging: ColumnElement[bool]) -> Going:
    """The tasks that fulfil this, those below them included."""
    return await _going(db, _tree(belonging).c.id)


async def phases_going(db: AsyncConnection, initiative_id: UUID) -> Going:
    """The phases of an initiative."""
    return await _going(db, phase.c.id, phase.c.initiative_id == initiative_id)


async def _going(
    db: AsyncConnection, ids: ColumnElement[UUID], *where: ColumnElement[bool]
) -> Going:
    counted = select(func.count().over().label("number"), ids.label("id")).where(*where)
    rows = (await db.execute(counted.order_by(ids).limit(TOLD_IDS))).all()
    return Going(rows[0].number if rows else 0, [row.id for row in rows])


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
