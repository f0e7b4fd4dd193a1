"""Rows as the JSON that their entities are encoded to, byte for byte, written by PostgreSQL.

What PostgreSQL spells otherwise than pydantic (``jsonb``, floats, decimals) it hands over between
marks, and it is encoded here. A mark is a control character, which JSON never holds as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import cache
from typing import Any, Final, TypeVar

from pydantic_core import from_json, to_json
from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    Date,
    DateTime,
    Double,
    Integer,
    Numeric,
    Text,
    Uuid,
    literal_column,
)
from sqlalchemy.dialects.postgresql import JSONB

from bus.contract.entity import Entity
from bus.storage.entities import statements

_MARK: Final = "\x01"

# Pydantic leaves microseconds out where there are none, and else writes all six digits.
_TIME: Final = """replace(to_char({0} AT TIME ZONE interval '0','YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    '.000000Z','Z')"""

_MARKED: Final = r"E'\x01{1}\x01', {0}, E'\x01'"

_WRITTEN: Final[dict[type, str]] = {
    Text: "to_json({0})",
    Uuid: "'\"', {0}, '\"'",
    Integer: "{0}",
    Boolean: "CASE WHEN {0} THEN 'true' ELSE 'false' END",
    DateTime: f"'\"', {_TIME}, '\"'",
    Date: "'\"', to_char({0},'YYYY-MM-DD'), '\"'",
    JSONB: f"CASE WHEN {{0}} = '[]' THEN '[]' ELSE concat({_MARKED}) END",
    Double: _MARKED,
    Numeric: _MARKED,
}
"""How PostgreSQL writes the values of a type: what ``concat`` takes, of a column and its name."""

_READ: Final[dict[type, Callable[[str], Any]]] = {
    JSONB: from_json,
    Double: float,
    Numeric: Decimal,
}
"""What reads a value that was marked."""

F = TypeVar("F")


class Encoding:
    """How the rows of one entity become JSON."""

    def __init__(self, entity: type[Entity]) -> None:
        self._made = statements(entity)
        table = self._made.table
        values = [f"'\"{name}\":', {_value(table.c[name])}" for name in self._made.names]
        written = ("'{', " + ", ',', ".join(values) + ", '}'").replace("', '", "")  # one literal
        self.item: ColumnElement[str] = literal_column(f"concat({written})", Text)
        """What selects a row of the table as a text for ``finished``."""

    def finished(self, item: str) -> str:
        """The JSON of a row that was selected."""
        if _MARK not in item:
            return item
        parts = item.split(_MARK)
        for place in range(1, len(parts), 3):
            parts[place], parts[place + 1] = "", self._encoded(*parts[place : place + 2])
        return "".join(parts)

    def _encoded(self, name: str, text: str) -> str:
        value = _of_type(_READ, self._made.table.c[name])(text)
        if value and name in self._made.models:
            value = self._made.models[name].validate_python(value, strict=False)
        return to_json(value, inf_nan_mode="null").decode()


@cache
def encoding(entity: type[Entity]) -> Encoding:
    """How the rows of an entity become JSON, built once."""
    return Encoding(entity)


def _value(column: Column[Any]) -> str:
    name = f"{column.table}.{column.name}"
    written = _of_type(_WRITTEN, column).format(name, column.name)
    if not column.nullable:
        return written
    return f"CASE WHEN {name} IS NULL THEN 'null' ELSE concat({written}) END"


def _of_type(known: Mapping[type, F], column: Column[Any]) -> F:
    return next(known[kind] for kind in type(column.type).__mro__ if kind in known)
