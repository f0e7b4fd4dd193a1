"""Keyset pages: a page costs the same at row ten million, and no row is skipped or told twice."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, TypeVar
from uuid import UUID

import pydantic_core
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import BigInteger, Column, ColumnElement, func, literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts._declare import Entity, ListOf, Page
from contracts._fields import MAX_INT4, MAX_INT8, Text, Time
from contracts.errors import FieldError, InvalidRequest
from persistence._entities import columns, entity_from
from persistence._tables import TABLES

E = TypeVar("E", bound=Entity)

_KEYS: Mapping[type, TypeAdapter[Any]] = {
    datetime: TypeAdapter(Time),
    date: TypeAdapter(date),
    str: TypeAdapter(Text),
    int: TypeAdapter(int),
    UUID: TypeAdapter(UUID),
}


@dataclass(frozen=True)
class _Key:
    """Where a page ends: the value of the order column and the id of its last item."""

    value: Any
    id: UUID | str


async def page(
    db: AsyncConnection,
    query: ListOf[E],
    entity: type[E],
    where: Sequence[ColumnElement[bool]],
) -> Page[E]:
    """The page that a list query asks for, of the rows of its entity that fulfil ``where``.

    ``query.order`` names a column of the entity that is never null; ``-`` turns it round.
    """
    table = TABLES[entity]
    column, descending = table.c[query.order.removeprefix("-")], query.order.startswith("-")
    conditions = list(where)
    if query.cursor is not None:
        conditions.append(_after(column, table.c.id, descending, decode(query, column)))
    direction = (column.desc(), table.c.id.desc()) if descending else (column, table.c.id)
    statement = columns(entity).where(*conditions).order_by(*direction).limit(query.limit + 1)
    rows = (await db.execute(statement)).all()
    items = [entity_from(entity, row) for row in rows[: query.limit]]
    more = len(rows) > query.limit
    cursor = encode(query, getattr(items[-1], column.name), items[-1].id) if more else None
    total = await _total(db, query, table, where)
    # Not validated: the items are trusted, and the rest is ours.
    return Page.model_construct(items=items, next_cursor=cursor, total=total)


def encode(query: ListOf[Any], value: Any, id_: UUID | str) -> str:
    """The opaque cursor behind an item of a list."""
    content = pydantic_core.to_json([query.declared.subject, query.order, value, id_])
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def decode(query: ListOf[Any], column: Column[Any], id_column: Column[Any] | None = None) -> _Key:
    """Where a cursor points; a cursor of another list or order, or none at all, is refused."""
    id_column = column.table.c.id if id_column is None else id_column
    assert query.cursor is not None
    try:
        padded = query.cursor + "=" * (-len(query.cursor) % 4)
        content = base64.b64decode(padded.encode("ascii"), altchars=b"-_", validate=True)
        subject, order, value, id_ = pydantic_core.from_json(content)
        id_ = _KEYS[id_column.type.python_type].validate_python(id_)
        key = _Key(_KEYS[column.type.python_type].validate_python(_typed(value, column)), id_)
    except (ValueError, TypeError, AttributeError, binascii.Error, ValidationError):
        raise _refused("is not a cursor of this list") from None
    if (subject, order) != (query.declared.subject, query.order):
        raise _refused("belongs to another list or another order")
    return key


def _typed(value: Any, column: Column[Any]) -> Any:
    expected = int if column.type.python_type is int else str
    largest = MAX_INT8 if isinstance(column.type, BigInteger) else MAX_INT4
    if type(value) is not expected or (isinstance(value, int) and abs(value) > largest):
        raise ValueError
    return value


def _refused(message: str) -> InvalidRequest:
    return InvalidRequest(errors=[FieldError(field="cursor", message=message)])


def after(
    column: Column[Any], id_: Column[Any], query: ListOf[Any], *, descending: bool
) -> ColumnElement[bool]:
    """What lies behind the cursor of a query."""
    return _after(column, id_, descending, decode(query, column, id_))


def _after(
    column: Column[Any], id_: Column[Any], descending: bool, key: _Key
) -> ColumnElement[bool]:
    place = tuple_(column, id_)
    last = tuple_(literal(key.value, column.type), literal(key.id, id_.type))
    return place < last if descending else place > last


async def _total(
    db: AsyncConnection, query: ListOf[Any], table: Any, where: Sequence[ColumnElement[bool]]
) -> int | None:
    if query.count != "exact":
        return None
    counted = await db.execute(select(func.count()).select_from(table).where(*where))
    return int(counted.scalar_one())
