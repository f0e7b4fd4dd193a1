"""Entities by id, many at once: load, insert and update in one statement each.

Rows travel as one JSON text that Postgres unpacks (``json_to_recordset``), so a statement is the
same whatever the number of rows, is prepared once, and an entity is encoded once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar, get_args
from uuid import UUID

from asyncpg import Record
from pydantic import BaseModel, TypeAdapter
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    FromClause,
    Insert,
    Select,
    Table,
    Text,
    bindparam,
    cast,
    column,
    func,
    insert,
    literal_column,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.entity import Entity
from bus.storage.driver import Compiled, compiled, execute, fetch
from bus.storage.own.tables import deletions
from bus.storage.sizes import require_fitting
from bus.storage.tables import INSERTED, ROOTS, TABLES, holds_a_field

E = TypeVar("E", bound=Entity)
K = TypeVar("K", bound=UUID | str)


@dataclass(frozen=True)
class Statements(Generic[E]):
    """The statements that serve one entity, and how its columns become models."""

    table: Table
    read: Compiled
    lock: Compiled
    insert: Compiled
    update: Compiled
    names: tuple[str, ...]
    """The fields of the entity, in the order of the contract."""
    models: Mapping[str, TypeAdapter[Any]]
    """What makes models of the ``jsonb`` columns that hold some."""


@cache
def statements(entity: type[E]) -> Statements[E]:
    """The statements of an entity, built once."""
    table = TABLES[entity]
    rows = _recordset(table)
    read = columns(entity).where(
        table.c.id == func.any(bindparam("ids", type_=ARRAY(table.c.id.type)))
    )
    changed = {c.name: c for c in rows.c if c.name not in {"id", "created_at"}}
    # FOR NO KEY UPDATE: rows that refer to this one by foreign key need not wait.
    lock = read.order_by(table.c.id).with_for_update(key_share=True)
    return Statements(
        table=table,
        read=compiled(read),
        lock=compiled(lock),
        insert=compiled(_insert(entity, rows)),
        update=compiled(update(table).where(table.c.id == rows.c.id).values(changed)),
        names=tuple(entity.model_fields),
        models=_models(entity),
    )


def columns(entity: type[Entity]) -> Select[Any]:
    """``SELECT`` of the columns that make up an entity, of all that are present."""
    return select(*_own(TABLES[entity])).where(*present(entity))


def present(entity: type[Entity]) -> tuple[ColumnElement[bool], ...]:
    """The condition that a row is not gone with what it belongs to, if it may be.

    Whatever chooses rows otherwise than by ids of what is present has it; ``columns`` has it.
    """
    # Not a join, for which a planner might sort: a look into what is nearly always empty.
    return tuple(gone.is_not(true()) for gone in gone_with(entity))


def gone_with(entity: type[Entity]) -> tuple[ColumnElement[bool], ...]:
    """The condition that a row is gone with what it belongs to, if it may be."""
    if (root := ROOTS.get(entity)) is None:
        return ()
    column = TABLES[entity].c[root.field]
    of_its_kind = deletions.c.entity == literal_column(f"'{root.entity.noun}'")
    found = select(cast(deletions.c.id, column.type)).where(of_its_kind)
    return (column.in_(found),)


def root_of(entity: Entity) -> str | None:
    """What an entity is gone with, as ``bus.hold_roots`` names it; None if with nothing else."""
    if (root := ROOTS.get(type(entity))) is None:
        return None
    id_ = getattr(entity, root.field)
    return None if id_ is None else f"{root.entity.noun}:{id_}"


def entity_from(entity: type[E], row: Any) -> E:
    """The entity that a row of ``columns`` holds, as SQLAlchemy or the driver returns it."""
    found = row if isinstance(row, Record) else row._mapping  # noqa: SLF001  its public name
    made = statements(entity)
    values = {name: found[name] for name in made.names}
    for name, adapter in made.models.items():
        if values[name]:
            values[name] = adapter.validate_python(values[name], strict=False)
    return entity.trusted(values)


async def load(db: AsyncConnection, entity: type[E], ids: Iterable[K]) -> dict[K, E]:
    """The entities with these ids, as they are in this statement's snapshot."""
    return await _fetch(db, entity, statements(entity).read, ids)


async def lock(db: AsyncConnection, entity: type[E], ids: Iterable[K]) -> dict[K, E]:
    """The entities with these ids, locked until the transaction ends, in the order of their ids."""
    return await _fetch(db, entity, statements(entity).lock, ids)


async def get(db: AsyncConnection, entity: type[E], id_: UUID) -> E:
    """The entity with this id, or its own ``…NotFound``."""
    found = await load(db, entity, [id_])
    if id_ not in found:
        raise entity.not_found(id=id_)
    return found[id_]


async def get_locked(db: AsyncConnection, entity: type[E], id_: UUID) -> E:
    """The entity with this id, locked until the transaction ends, or its own ``…NotFound``."""
    found = await lock(db, entity, [id_])
    if id_ not in found:
        raise entity.not_found(id=id_)
    return found[id_]


async def exists(db: AsyncConnection, entity: type[Entity], id_: Any) -> bool:
    """Whether there is an entity with this id."""
    return bool(await fetch(db, _there(entity), {"id": id_}))


async def require(db: AsyncConnection, entity: type[Entity], id_: Any) -> None:
    """Refuse with the entity's own ``…NotFound`` if there is none with this id."""
    if not await exists(db, entity, id_):
        raise entity.not_found(id=id_)


async def add(db: AsyncConnection, entities: Sequence[E]) -> None:
    """Insert new entities, all of one class."""
    if entities:
        await execute(db, statements(type(entities[0])).insert, {"rows": encode(entities)})


async def save(db: AsyncConnection, entities: Sequence[E]) -> None:
    """Write changed entities back, all of one class; their rows must be locked."""
    if entities:
        await execute(db, statements(type(entities[0])).update, {"rows": encode(entities)})


@cache
def _there(entity: type[Entity]) -> Compiled:
    id_ = TABLES[entity].c.id
    known = id_ == bindparam("id", type_=id_.type)
    return compiled(select(literal_column("1")).where(known, *present(entity)))


def encode(entities: Sequence[Entity]) -> str:
    """Entities as one JSON array; a command whose entities have become too large is refused."""
    require_fitting(entities)
    return (b"[" + b",".join([entity.encoded() for entity in entities]) + b"]").decode()


async def _fetch(
    db: AsyncConnection, entity: type[E], statement: Compiled, ids: Iterable[K]
) -> dict[K, E]:
    records = await fetch(db, statement, {"ids": list(ids)})
    return {record["id"]: entity_from(entity, record) for record in records}


def _models(entity: type[Entity]) -> dict[str, TypeAdapter[Any]]:
    annotations: dict[str, Any] = {n: f.annotation for n, f in entity.model_fields.items()}
    return {n: TypeAdapter(kind) for n, kind in annotations.items() if _holds_models(kind)}


def _holds_models(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return True
    return any(_holds_models(part) for part in get_args(annotation))


def _insert(entity: type[Entity], rows: FromClause) -> Insert:
    table = TABLES[entity]
    if entity not in INSERTED:
        assert not any(column.info.get("derived") for column in table.columns), table.name
        return insert(table).from_select([c.name for c in rows.c], select(*rows.c))
    source = INSERTED[entity](rows)
    return insert(table).from_select([c.name for c in source.selected_columns], source)


def _own(table: Table) -> list[Any]:
    return [column for column in table.columns if holds_a_field(column)]


def _recordset(table: Table) -> FromClause:
    unpacked = func.json_to_recordset(cast(bindparam("rows", type_=Text), JSON))
    typed = [column(c.name, JSONB() if isinstance(c.type, JSONB) else c.type) for c in _own(table)]
    return unpacked.table_valued(*typed, name="r").render_derived(with_types=True)
