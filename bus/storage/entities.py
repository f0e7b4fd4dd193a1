"""Entities by id, many at once: load, insert and update in one statement each.

Rows travel as one JSON text that Postgres unpacks (``json_to_recordset``), so a statement is the
same whatever the number of rows, is prepared once, and an entity is encoded once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, Literal, NamedTuple, TypeAlias, TypeVar, get_args
from uuid import UUID

from asyncpg import Record
from pydantic import BaseModel, TypeAdapter
from sqlalchemy import (
    ARRAY,
    FromClause,
    Insert,
    Select,
    Table,
    bindparam,
    func,
    insert,
    literal_column,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.entity import Entity
from bus.contract.errors import EntityTooLarge
from bus.storage import rows as _rows
from bus.storage import sizes as _sizes
from bus.storage.driver import Compiled, compiled, execute, fetch, numbered, part
from bus.storage.rows import own_columns, recordset
from bus.storage.tables import INSERTED, TABLES, VersionedRow
from bus.storage.tables import table as table_of

E = TypeVar("E", bound=Entity)
K = TypeVar("K", bound=UUID | str)

Beside: TypeAlias = Entity | VersionedRow
"""What may be added beside an entity that is written: a new entity, or a row that is none."""

Kind: TypeAlias = type[Entity] | type[VersionedRow]


class Changes(NamedTuple):
    """Entities of one class that are to be inserted or updated, and what is added beside them."""

    kind: Literal["insert", "update"]
    entities: Sequence[Entity]
    beside: Sequence[Beside] = ()

    def form(self) -> Form:
        """What a statement that writes them depends on."""
        entity = type(self.entities[0]) if self.entities else None
        added = {type(one): _name_of(type(one)) for one in self.beside}
        return Form(entity, self.kind, tuple(sorted(added, key=added.__getitem__)))

    def values(self) -> dict[str, Any]:
        """The parameters of the parts of such a statement."""
        values = {"rows": encode(self.entities)} if self.entities else {}
        for number, kind in enumerate(self.form().beside):
            added = [one for one in self.beside if type(one) is kind]
            values[f"beside_{number}"] = _encode_beside(added)
        return values


class Form(NamedTuple):
    """Changes without what is changed."""

    entity: type[Entity] | None
    kind: Literal["insert", "update"]
    beside: tuple[Kind, ...]

    def parts(self) -> dict[str, str]:
        """What writes them, as common table expressions by their names."""
        found = {}
        if self.entity is not None:
            known = statements(self.entity)
            found["changed"] = part(known.insert if self.kind == "insert" else known.update)
        for number, kind in enumerate(self.beside):
            added = part(_insertion(kind)).replace(":rows", f":beside_{number}")
            found[f"beside_{number}"] = added
        return {name: f"{name} AS ({text} RETURNING 1)" for name, text in found.items()}


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
    rows = recordset(table)
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
    """``SELECT`` of the columns that make up an entity."""
    return select(*own_columns(TABLES[entity]))


def entity_from(entity: type[E], row: Any) -> E:
    """The entity that a row of ``columns`` holds, as SQLAlchemy or the driver returns it."""
    found = row if isinstance(row, Record) else row._mapping  # noqa: SLF001  its public name
    return entity_of(entity, {name: found[name] for name in statements(entity).names})


def entity_of(entity: type[E], values: dict[str, Any]) -> E:
    """The entity that has these values in its table, in the order of the contract."""
    for name, adapter in statements(entity).models.items():
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


async def add(db: AsyncConnection, entities: Sequence[E], *, beside: Sequence[Beside] = ()) -> None:
    """Insert new entities, all of one class, and with them what lies beside them."""
    await write(db, Changes("insert", entities, beside))


async def save(
    db: AsyncConnection, entities: Sequence[E], *, beside: Sequence[Beside] = ()
) -> None:
    """Write changed entities back, all of one class; their rows must be locked.

    With them is added what lies beside them.
    """
    await write(db, Changes("update", entities, beside))


async def write(db: AsyncConnection, changes: Changes) -> None:
    """Write changes, if there are any, with one statement."""
    if changes.entities or changes.beside:
        await execute(db, _writing(changes.form()), changes.values())


@cache
def _writing(form: Form) -> Compiled:
    if form.entity is not None and not form.beside:
        known = statements(form.entity)
        return known.insert if form.kind == "insert" else known.update
    return numbered(f"WITH {', '.join(form.parts().values())} SELECT 1")


@cache
def _insertion(kind: Kind) -> Compiled:
    return statements(kind).insert if issubclass(kind, Entity) else _rows.insertion(kind)


@cache
def _name_of(kind: Kind) -> str:
    return (TABLES[kind] if issubclass(kind, Entity) else table_of(kind)).fullname


@cache
def _there(entity: type[Entity]) -> Compiled:
    id_ = TABLES[entity].c.id
    return compiled(select(literal_column("1")).where(id_ == bindparam("id", type_=id_.type)))


def encode(entities: Sequence[Entity]) -> str:
    """Entities as one JSON array; a command whose entities have become too large is refused."""
    _sizes.require_fitting(entities)
    return (b"[" + b",".join([entity.encoded() for entity in entities]) + b"]").decode()


def beside_too_large(beside: Iterable[Beside], max_payload: int) -> EntityTooLarge | None:
    """The refusal of the first of what is added beside an entity that is too large."""
    for one in beside:
        if isinstance(one, Entity):
            refusal = _sizes.too_large(one, None, max_payload)
        else:
            refusal = _rows.too_large(one, max_payload)
        if refusal is not None:
            return refusal
    return None


def _encode_beside(beside: Sequence[Beside]) -> str:
    max_payload = _sizes.measuring()
    if max_payload is not None and (refusal := beside_too_large(beside, max_payload)):
        raise refusal
    texts = [one.encoded() if isinstance(one, Entity) else _rows.encoded(one) for one in beside]
    return (b"[" + b",".join(texts) + b"]").decode()


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
