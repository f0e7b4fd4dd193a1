"""Filters of lists: what the fields of a query ask of a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Column, ColumnElement, Table, Text, bindparam, func, literal_column, or_

Condition = ColumnElement[bool]

Filters = Mapping[str, Condition | Mapping[Any, Condition]]
"""By field: a condition that its value is bound to by the field's name, or one for each value."""


def equal(table: Table, *names: str) -> dict[str, Condition]:
    """Each of these columns has the value of the field of the same name."""
    return {name: table.c[name] == bindparam(name, type_=table.c[name].type) for name in names}


def is_set(column: Column[Any]) -> dict[bool, Condition]:
    """Whether a column has a value at all."""
    return {True: column.is_not(None), False: column.is_(None)}


def either(condition: Condition) -> dict[bool, Condition]:
    """Whether a condition holds."""
    return {True: condition, False: ~condition}


def contains(field: str, *columns: Column[Any]) -> Condition:
    """Any of these columns contains the value of a field, case ignored."""
    wanted = func.lower(bindparam(field, type_=Text))
    return or_(
        *(func.strpos(func.lower(column), wanted) > literal_column("0") for column in columns)
    )
