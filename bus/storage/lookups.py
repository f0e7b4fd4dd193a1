"""What queries by id read: entities, what lies beside them, and others that they name.

All of it comes with one statement for all who ask at the same time, and the clock with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

from sqlalchemy import ARRAY, bindparam, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.entity import Entity
from bus.storage.companions import CompanionRow
from bus.storage.driver import Compiled, compiled, fetch
from bus.storage.entities import entity_of, load
from bus.storage.tables import TABLES, attributes, table

Kind: TypeAlias = type[Entity] | type[CompanionRow]


class Part(NamedTuple):
    """One of what is read; all but the first are those that a field of one before it names."""

    kind: Kind
    of: int = 0
    by: str = "id"


class Found(NamedTuple):
    """What was read: the time, if it was asked for, and by the id of the first all that it is of.

    What is not there is None.
    """

    now: datetime | None
    rows: Mapping[Any, tuple[Any, ...]]


@dataclass(frozen=True)
class _Reading:
    statement: Compiled
    makers: tuple[Callable[[dict[str, Any]], Any], ...]
    names: tuple[tuple[str, ...], ...]
    """The attributes of each part, whose columns follow one another."""


async def look_up(
    db: AsyncConnection, parts: tuple[Part, ...], ids: Iterable[Any], *, clock: bool
) -> Found:
    """Everything that these ids of the first part name."""
    if len(parts) == 1 and issubclass(kind := parts[0].kind, Entity) and not clock:
        return Found(None, {id_: (one,) for id_, one in (await load(db, kind, ids)).items()})
    reading = _reading(parts, clock)
    records = await fetch(db, reading.statement, {"ids": list(ids)})
    ends = [int(clock)]
    for names in reading.names:
        ends.append(ends[-1] + len(names))
    found = {}
    for record in records:
        made = []
        for maker, names, (begin, end) in zip(
            reading.makers, reading.names, pairwise(ends), strict=True
        ):
            values = dict(zip(names, record[begin:end], strict=True))
            made.append(None if values["id"] is None else maker(values))
        if made[0] is not None:
            found[made[0].id] = tuple(made)
    return Found(records[0][0] if clock else None, found)


@cache
def _reading(parts: tuple[Part, ...], clock: bool) -> _Reading:
    names, columns, makers = [], [], []
    always = select(literal_column("1")).subquery("always")
    joined: Any = always
    aliases: list[Any] = []
    for number, (kind, of, by) in enumerate(parts):
        held, own = _columns(kind)
        one = held.alias(f"part_{number}")
        aliases.append(one)
        if number == 0:
            found = one.c.id == func.any(bindparam("ids", type_=ARRAY(one.c.id.type)))
        else:
            found = one.c.id == aliases[of].c[by]
        joined = joined.outerjoin(one, found)
        names.append(tuple(own))
        columns += [one.c[column].label(f"{one.name}_{column}") for column in own.values()]
        makers.append(_maker(kind))
    first = [func.clock_timestamp().label("bus_now")] if clock else []
    statement = select(*first, *columns).select_from(joined)
    return _Reading(compiled(statement), tuple(makers), tuple(names))


def _columns(kind: Kind) -> tuple[Any, dict[str, str]]:
    """The table of what is read, and the names of its columns by those of their attributes."""
    if issubclass(kind, Entity):
        return TABLES[kind], {name: name for name in kind.model_fields}
    return table(kind), {name: column.name for name, column in attributes(kind).items()}


def _maker(kind: Kind) -> Callable[[dict[str, Any]], Any]:
    if issubclass(kind, Entity):
        return lambda values: entity_of(kind, values)
    return kind.of
