"""Deleting an entity: locked against new references first, so that what goes along is counted."""

from __future__ import annotations

from typing import Any, TypeVar

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.entity import Entity
from bus.storage.entities import columns, entity_from
from bus.storage.tables import TABLES

E = TypeVar("E", bound=Entity)


async def lock_for_deletion(db: AsyncConnection, entity: type[E], id_: Any) -> E:
    """The entity, locked so that nothing can refer to it any more, or its own ``…NotFound``.

    What refers to it, and is of a context above, is asked for only when the transaction ends: a
    reaction to its deletion lets it go.
    """
    statement = columns(entity).where(TABLES[entity].c.id == id_).with_for_update()
    row = (await db.execute(statement)).one_or_none()
    if row is None:
        raise entity.not_found(id=id_)
    return entity_from(entity, row)


async def remove(db: AsyncConnection, entity: Entity) -> None:
    """Delete a locked entity and whatever belongs to it."""
    table = TABLES[type(entity)]
    await db.execute(delete(table).where(table.c.id == entity.id))
