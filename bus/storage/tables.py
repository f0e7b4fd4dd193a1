"""What every table has, and how constraints are named.

Mapped classes only declare tables; statements are SQLAlchemy Core.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from functools import cache
from typing import Any, ClassVar, Literal, Self, TypeAlias, get_args, get_origin
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    FromClause,
    Integer,
    MetaData,
    Select,
    Table,
    Text,
    func,
    inspect,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from bus.contract.entity import Entity
from bus.contract.refusals import DeclarationError
from bus.kit.ids import uuid7
from bus.storage.partitions import PARTITIONED, Daily, Partitioned

NAMING = {
    "pk": "pk_%(table_name)s",
    "uq": "uq_%(table_name)s__%(column_0_N_name)s",
    "ix": "ix_%(table_name)s__%(column_0_N_name)s",
    "fk": "fk_%(table_name)s__%(column_0_N_name)s",
    "ck": "ck_%(table_name)s__%(constraint_name)s",
}


Owners: TypeAlias = type[Entity] | tuple[type[Entity], ...]

ENDS_WITH: dict[str, tuple[type[Entity], ...]] = {}
"""Whose deletion ends the rows of a table: only to these do its foreign keys cascade."""


class Row(DeclarativeBase):
    """A table; ``Row.metadata`` knows them all.

    Rows that are deleted with their owner, without a word of their own, say ``ends_with=Owner`` in
    the class statement: the event of its deletion is their end too.
    """

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text,
        datetime: DateTime(timezone=True),
    }

    def __init_subclass__(cls, *, ends_with: Owners = (), **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if ends_with:
            owners = ends_with if isinstance(ends_with, tuple) else (ends_with,)
            ENDS_WITH[table(cls).fullname] = owners


class VersionedRow(Row):
    """A table with an id, a version and times, as every table of a context has them."""

    __abstract__ = True

    id: Mapped[UUID] = mapped_column(primary_key=True, sort_order=-4)
    version: Mapped[int] = mapped_column(Integer, server_default="1", sort_order=-3)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), sort_order=-2)
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), sort_order=-1)

    @classmethod
    def first(cls, *, now: datetime, id: Any = None, **values: Any) -> Self:  # noqa: A002  the column's own word
        """A new row at its first version, with a value for each of its columns.

        Without an id it is given one of its own: nobody is told it.
        """
        own = {"id": id or uuid7(), "version": 1, "created_at": now, "updated_at": now}
        known = attributes(cls).keys()
        if unknown := values.keys() - (known - own.keys()):
            raise TypeError(f"{cls.__name__}.first takes no {', '.join(sorted(unknown))}")
        if missing := known - own.keys() - values.keys():
            raise TypeError(f"{cls.__name__}.first needs {', '.join(sorted(missing))}")
        return cls.of(own | values)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The row with these values by attribute; nobody's session knows it, and none will."""
        made = cls.__new__(cls)
        made.__dict__.update(values)
        return made


@cache
def attributes(row: type[VersionedRow]) -> Mapping[str, Column[Any]]:
    """The columns of a table that hold values of their own, by the names of its attributes."""
    found = {one.key: one.columns[0] for one in inspect(row).column_attrs}
    return {n: c for n, c in found.items() if isinstance(c, Column) and holds_a_field(c)}


DERIVED: dict[Any, Any] = {"derived": True}
"""``info`` of a column beside an entity's own, which follows from other rows."""


def holds_a_field(column: Column[Any]) -> bool:
    """Whether a column holds a field of an entity; the others follow from these or other rows."""
    return not (column.computed or column.info.get("derived"))


class EntityRow(VersionedRow):
    """The table of an entity: one column per field of its contract; others only if they follow."""

    __abstract__ = True

    def __init_subclass__(
        cls, *, entity: type[Entity], daily: Daily | None = None, **kwargs: Any
    ) -> None:
        if entity.model_fields["id"].annotation is str:
            cls.id = mapped_column(Text, primary_key=True, sort_order=-4)
        super().__init_subclass__(**kwargs)
        columns = {column.name for column in table(cls).columns if holds_a_field(column)}
        if odd := entity.model_fields.keys() ^ columns:
            raise DeclarationError(
                f"{cls.__qualname__} and {entity.__qualname__} differ in {', '.join(sorted(odd))}: "
                "a table has one column for each field of its entity"
            )
        TABLES[entity] = held = table(cls)
        if daily is not None:
            PARTITIONED[held.name] = Partitioned(str(held.schema), held.name, daily)


TABLES: dict[type[Entity], Table] = {}
"""The table of every entity."""

INSERTED: dict[type[Entity], Callable[[FromClause], Select[Any]]] = {}
"""What is inserted of the rows of an entity whose table has derived columns."""


def table(row: type[Row]) -> Table:
    """The Core table behind a mapped class."""
    found = row.__table__
    assert isinstance(found, Table)
    return found


def lets_go(target: str) -> ForeignKey:
    """A reference to a live entity, which a reaction gives up when that is deleted.

    It is checked when the transaction ends, so that there is time for it.
    """
    return ForeignKey(f"{target}.id", deferrable=True, initially="DEFERRED")


def one_of(column: str, allowed: Any, *, besides: Collection[str] = ()) -> CheckConstraint:
    """A CHECK that a text column holds a value of this ``Literal``, save these (NULL passes)."""
    values = get_args(allowed)
    if get_origin(allowed) is not Literal or not {*besides} <= {*values}:
        raise DeclarationError(f"{column} is one of a Literal, besides some of its values")
    listed = ", ".join(f"'{value}'" for value in values if value not in besides)
    return CheckConstraint(f"{column} IN ({listed})", name=column)
