"""Rows that are no entities: written beside one, in the same statement, and only appended.

As entities they travel as one JSON text for each table. A row that a command makes too large for a
message is refused as an entity is: whatever is stored can be read.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pydantic_core
from sqlalchemy import (
    Column,
    FromClause,
    Table,
    Text,
    bindparam,
    cast,
    column,
    func,
    insert,
    select,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB

from bus.contract.errors import EntityTooLarge
from bus.contract.refusals import snake_case
from bus.storage.driver import Compiled, compiled
from bus.storage.sizes import limit_of_rows
from bus.storage.tables import VersionedRow, attributes, holds_a_field, table


def own_columns(table: Table) -> list[Column[Any]]:
    """The columns of a table whose values are given, not derived."""
    return [column for column in table.columns if holds_a_field(column)]


def recordset(table: Table) -> FromClause:
    """The rows of a JSON text ``:rows``, with the columns of a table."""
    unpacked = func.json_to_recordset(cast(bindparam("rows", type_=Text), JSON))
    typed = [
        column(c.name, JSONB() if isinstance(c.type, JSONB) else c.type) for c in own_columns(table)
    ]
    return unpacked.table_valued(*typed, name="r").render_derived(with_types=True)


@cache
def insertion(kind: type[VersionedRow]) -> Compiled:
    """The statement that inserts rows of a table."""
    held = table(kind)
    rows = recordset(held)
    return compiled(insert(held).from_select([c.name for c in rows.c], select(*rows.c)))


def encoded(row: VersionedRow) -> bytes:
    """A row as JSON, as its table takes it; made once."""
    values = row.__dict__
    if (known := values.get(_ENCODED)) is None:
        named = attributes(type(row)).items()
        known = pydantic_core.to_json({c.name: _plain(values[name]) for name, c in named})
        values[_ENCODED] = known
    made: bytes = known
    return made


def too_large(row: VersionedRow, max_payload: int) -> EntityTooLarge | None:
    """The refusal of a row that could not be told in one message."""
    size, most = len(encoded(row)), limit_of_rows(max_payload)
    if size <= most:
        return None
    return EntityTooLarge(entity=snake_case(type(row).__name__), bytes=size, limit=most)


_ENCODED = "_encoded"


def _plain(value: Any) -> Any:
    """A value as PostgreSQL reads it in JSON: of bytes their digits."""
    return rf"\x{value.hex()}" if isinstance(value, bytes) else value
