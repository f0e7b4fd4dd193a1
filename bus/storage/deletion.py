"""Deleting an entity: locked against new references first, so that what goes along is counted.

What has more parts than a transaction should delete is noted as deleted, and gone from then on for
all who look; ``bus.storage.own.deletions`` removes the rows in steps.
"""

from __future__ import annotations

from typing import Any, TypeVar

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.entity import Entity
from bus.storage.driver import execute, numbered
from bus.storage.entities import columns, entity_from
from bus.storage.tables import ROOTS, TABLES

E = TypeVar("E", bound=Entity)

# It is taken already if another deletion of the same came first, which a lock was waited for.
_NOTE = numbered(
    """
    INSERT INTO bus.deletions (entity, id, parts)
    VALUES (CAST(:entity AS text), CAST(:id AS text), CAST(:parts AS bigint))
    ON CONFLICT (entity, id) DO NOTHING
    """
)


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


async def remove_in_steps(db: AsyncConnection, entity: Entity, *, parts: int) -> None:
    """Let a locked entity and so many parts of it be gone; their rows are removed later.

    Its table says ``deleted_in_steps``. Its id stays taken until the last row is removed.
    """
    kind = type(entity)
    assert ROOTS[kind].entity is kind, kind
    values = {"entity": kind.noun, "id": str(entity.id), "parts": parts}
    if not await execute(db, _NOTE, values):
        raise kind.not_found(id=entity.id)
