"""Filters of lists that compare columns with what the query names."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Table

from contracts._declare import ListOf


def equal(query: ListOf[Any], table: Table, *names: str) -> list[ColumnElement[bool]]:
    """One condition for each of these filters that is given."""
    given = {name: value for name in names if (value := getattr(query, name)) is not None}
    return [table.c[name] == value for name, value in given.items()]
