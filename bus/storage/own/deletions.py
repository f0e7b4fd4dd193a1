"""What was deleted with many parts: its rows are removed in steps, and what is left is known.

A step goes down from the root to rows that nothing belongs to, along the foreign keys that cascade,
and removes these: so no statement of it cascades, and each touches no more rows than it may. It
needs to know nothing of the steps before it. Rows that others refer to stay until those let go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Column, Table, text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.entity import Entity
from bus.storage.driver import Compiled, execute, fetch, numbered
from bus.storage.tables import ROOTS, TABLES, Row

AT_ONCE = 16
"""How many deletions a step looks at, the oldest first: one that waits for others stops none."""

DEPTH = 16
"""How far a step goes down among rows of one table, which may lie below each other for ever."""

_OLDEST = numbered(
    """
    SELECT entity, id FROM bus.deletions ORDER BY deleted_at, entity, id LIMIT CAST(:rows AS int)
    """
)
_NOTE = numbered(
    """
    UPDATE bus.deletions SET removed = removed + CAST(:removed AS bigint)
    WHERE entity = CAST(:entity AS text) AND id = CAST(:id AS text)
    """
)
_FORGET = numbered(
    "DELETE FROM bus.deletions WHERE entity = CAST(:entity AS text) AND id = CAST(:id AS text)"
)
_ANY = numbered("SELECT FROM bus.deletions WHERE entity = CAST(:entity AS text) LIMIT 1")
_UNDER_WAY = text(
    """
    SELECT count(*) AS number, coalesce(sum(greatest(parts - removed, 0)), 0) AS parts,
           clock_timestamp() - min(deleted_at) AS oldest
    FROM bus.deletions
    """
)


class UnderWay(NamedTuple):
    """Deletions whose rows are still being removed."""

    number: int
    parts: int
    """How many rows are left, about."""
    oldest: timedelta | None
    """How long ago the first of them was decided."""


class _Key(NamedTuple):
    """A column that refers to a table."""

    table: Table
    column: Column[Any]


async def under_way(db: AsyncConnection) -> UnderWay:
    """The deletions that are not over."""
    row = (await db.execute(_UNDER_WAY)).one()
    return UnderWay(row.number, int(row.parts), row.oldest)


async def is_deleting(db: AsyncConnection, entity: type[Entity]) -> bool:
    """Whether rows of such an entity that is gone are still being removed."""
    return bool(await fetch(db, _ANY, {"entity": entity.noun}))


async def remove_some(db: AsyncConnection, *, limit: int) -> int:
    """Remove rows of what is gone; returns how many were touched, about ``limit`` at most."""
    touched = 0
    for row in await fetch(db, _OLDEST, {"rows": AT_ONCE}):
        touched += await _remove(db, row["entity"], row["id"], limit=limit - touched)
        if touched >= limit:
            break
    return touched


async def _remove(db: AsyncConnection, noun: str, id_: str, *, limit: int) -> int:
    """Remove rows of one deletion, and forget it when there are none left."""
    table = next(TABLES[root] for root in ROOTS if root.noun == noun)
    name = {"entity": noun, "id": id_}
    touched = 0
    while touched < limit:
        there = await fetch(db, _select(table, table.c.id), {"ids": [id_], "rows": 1})
        if not there:
            await execute(db, _FORGET, name)
            break
        ids = [row["id"] for row in there]
        if not (further := await _remove_below(db, table, ids, limit - touched)):
            break
        touched += further
    await execute(db, _NOTE, {**name, "removed": touched})
    return touched


async def _remove_below(
    db: AsyncConnection, table: Table, ids: Sequence[Any], limit: int, depth: int = DEPTH
) -> int:
    """Remove rows that belong to these, or else these; none if others refer to all of them."""
    values = {"ids": ids, "rows": limit}
    for key in _parts(table):
        if key.table is table and not depth:
            # What is below one of these is to be removed as well: let go, it need not be first.
            if unlinked := await execute(db, _unlink(table, key.column), values):
                return unlinked
        elif below := await fetch(db, _select(key.table, key.column), values):
            deeper = depth - (key.table is table)
            further = [row["id"] for row in below]
            return await _remove_below(db, key.table, further, limit, deeper)
    return await execute(db, _delete(table), {"ids": ids})


def _keys_to(table: Table) -> Iterator[tuple[_Key, bool]]:
    """The columns that refer to a table, and whether rows go with what they refer to."""
    for other in sorted(Row.metadata.tables.values(), key=lambda each: each.fullname):
        for key in sorted(other.foreign_keys, key=lambda each: each.parent.name):
            if key.target_fullname == f"{table.fullname}.id":
                yield _Key(other, key.parent), key.ondelete == "CASCADE"


@cache
def _parts(table: Table) -> tuple[_Key, ...]:
    return tuple(key for key, goes_along in _keys_to(table) if goes_along)


@cache
def _select(table: Table, column: Column[Any]) -> Compiled:
    """Rows by the values of a column, locked."""
    type_ = _type(column)
    return numbered(
        f"SELECT id FROM {table.fullname} WHERE {column.name} = ANY (CAST(:ids AS {type_}[]))"
        " LIMIT CAST(:rows AS bigint) FOR UPDATE"
    )


@cache
def _unlink(table: Table, column: Column[Any]) -> Compiled:
    """Let go of what is below these rows in the same table, and is not one of them."""
    type_ = _type(table.c.id)
    return numbered(
        f"""
        UPDATE {table.fullname} SET {column.name} = NULL WHERE id IN (
            SELECT id FROM {table.fullname} WHERE {column.name} = ANY (CAST(:ids AS {type_}[]))
            AND id <> ALL (CAST(:ids AS {type_}[])) LIMIT CAST(:rows AS bigint)
        )
        """
    )


@cache
def _delete(table: Table) -> Compiled:
    """Delete these rows but those that others refer to, who have to let go first."""
    held = "".join(
        f" AND NOT EXISTS (SELECT FROM {key.table.fullname} o WHERE o.{key.column.name} = t.id)"
        for key, goes_along in _keys_to(table)
        if not goes_along
    )
    type_ = _type(table.c.id)
    return numbered(
        f"DELETE FROM {table.fullname} t WHERE t.id = ANY (CAST(:ids AS {type_}[])){held}"
    )


def _type(column: Column[Any]) -> str:
    return "uuid" if column.type.python_type is UUID else "text"
