"""Entities by what names them in the world: a slug, a name, a day."""

from __future__ import annotations

from typing import Any, TypeVar

from sqlalchemy import ColumnElement
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.entity import Entity
from bus.storage.entities import columns, entity_from
from bus.storage.locks import UNIQUE
from bus.storage.tables import TABLES

E = TypeVar("E", bound=Entity)


async def get_by(db: AsyncConnection, entity: type[E], **key: Any) -> E:
    """The entity with this unique value, or its own ``…NotFound``."""
    row = (await db.execute(columns(entity).where(_named(entity, key)))).one_or_none()
    if row is None:
        raise entity.not_found(**key)
    return entity_from(entity, row)


async def lock_by(db: AsyncConnection, entity: type[E], **key: Any) -> E | None:
    """The entity with this unique value, locked; None where there is none."""
    statement = columns(entity).where(_named(entity, key)).with_for_update()
    row = (await db.execute(statement)).one_or_none()
    return None if row is None else entity_from(entity, row)


async def lock_or_reserve(db: AsyncConnection, entity: type[E], **key: Any) -> E | None:
    """Like ``lock_by``; where there is none, nobody else makes it before this transaction ends."""
    if (found := await lock_by(db, entity, **key)) is not None:
        return found
    await UNIQUE.hold(db, f"{TABLES[entity].name} {sorted(key.items())}")
    return await lock_by(db, entity, **key)


async def get_locked_by(db: AsyncConnection, entity: type[E], **key: Any) -> E:
    """The entity with this unique value, locked, or its own ``…NotFound``."""
    if (found := await lock_by(db, entity, **key)) is None:
        raise entity.not_found(**key)
    return found


def _named(entity: type[Entity], key: dict[str, Any]) -> ColumnElement[bool]:
    [(name, value)] = key.items()
    condition: ColumnElement[bool] = TABLES[entity].c[name] == value
    return condition
