"""Core statements run by the driver itself, for the few that every request needs.

SQLAlchemy composes and compiles them, once; at run time its execution layer (a greenlet switch,
result metadata and cursor adaptation for each statement, about 100 µs) is left out. What runs here
sees the driver's own types: ``jsonb`` is text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from asyncpg import Record
from sqlalchemy import Executable
from sqlalchemy.dialects.postgresql.asyncpg import dialect
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql import ClauseElement

_DIALECT = dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's own


class Compiled:
    """A statement as the driver takes it: the text, and the order of its parameters."""

    __slots__ = ("order", "text")

    def __init__(self, text: str, order: Sequence[str]) -> None:
        self.text = text
        self.order = tuple(order)


def compiled(statement: Executable) -> Compiled:
    """A Core statement, compiled."""
    assert isinstance(statement, ClauseElement)
    found: Any = statement.compile(dialect=_DIALECT)
    return Compiled(str(found), found.positiontup or ())


def text_of(condition: ClauseElement) -> str:
    """The text of a condition without parameters, to be put into a larger statement."""
    return str(condition.compile(dialect=_DIALECT))


_NUMBER = re.compile(r"\$(\d+)")
_NAME = re.compile(r"(?<!:):([a-z_]+\d*)\b")


def part(statement: Compiled) -> str:
    """The text of a statement with ``:names`` for numbers, to be put into a larger one."""
    return _NUMBER.sub(lambda found: ":" + statement.order[int(found[1]) - 1], statement.text)


def numbered(text: str) -> Compiled:
    """A statement that is written with ``:names``, as the driver takes it."""
    order: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        return f"${order.setdefault(found[1], len(order) + 1)}"

    return Compiled(_NAME.sub(number, text), tuple(order))


async def execute(db: AsyncConnection, statement: Compiled, parameters: Mapping[str, Any]) -> int:
    """How many rows a statement that returns none has changed."""
    values = [parameters[name] for name in statement.order]
    status: str = await driver_of(db).execute(statement.text, *values)
    return int(status.rsplit(" ", 1)[-1])


async def fetch(
    db: AsyncConnection, statement: Compiled, parameters: Mapping[str, Any]
) -> list[Record]:
    """The rows that a statement returns."""
    values = [parameters[name] for name in statement.order]
    rows: list[Record] = await driver_of(db).fetch(statement.text, *values)
    return rows


def driver_of(db: AsyncConnection) -> Any:
    """The asyncpg connection behind a connection that has been used already."""
    return db.sync_connection.connection.driver_connection  # type: ignore[union-attr]  # connected
