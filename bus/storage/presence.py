"""What is there: a row counts as gone once that which it belongs to is being deleted in steps."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Text,
    cast,
    column,
    literal_column,
    select,
    table,
    true,
)

from bus.contract.entity import Entity
from bus.storage.tables import ROOTS, TABLES

_DELETIONS: Final = table("deletions", column("entity", Text), column("id", Text), schema="bus")
"""What is deleted and still being removed, by the name of its kind and its id."""


def present(entity: type[Entity], of: FromClause | None = None) -> tuple[ColumnElement[bool], ...]:
    """The condition that a row is not gone with what it belongs to, if it may be.

    Whatever chooses rows otherwise than by ids of what is present has it; ``columns`` has it.
    ``of`` is an alias of the table, if it is read under one.
    """
    # Not a join, for which a planner might sort: a look into what is nearly always empty.
    return tuple(gone.is_not(true()) for gone in gone_with(entity, of))


def gone_with(
    entity: type[Entity], of: FromClause | None = None
) -> tuple[ColumnElement[bool], ...]:
    """The condition that a row is gone with what it belongs to, if it may be."""
    if (root := ROOTS.get(entity)) is None:
        return ()
    named = (TABLES[entity] if of is None else of).c[root.field]
    of_its_kind = _DELETIONS.c.entity == literal_column(f"'{root.entity.noun}'")
    found = select(cast(_DELETIONS.c.id, named.type)).where(of_its_kind)
    return (named.in_(found),)


def root_of(entity: Entity) -> str | None:
    """What an entity is gone with, as ``bus.hold_roots`` names it; None if with nothing else."""
    if (root := ROOTS.get(type(entity))) is None:
        return None
    id_ = getattr(entity, root.field)
    return None if id_ is None else f"{root.entity.noun}:{id_}"
