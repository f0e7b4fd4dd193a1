"""The tables of ``doors``."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, LargeBinary, MetaData, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from bus.storage import CompanionRow, EntityRow, VersionedRow, table
from bus.storage.tables import NAMING
from tests.bus.doors.contracts.doors import doors, keys

SCHEMA = {"schema": "doors"}
DOORS = MetaData(naming_convention=NAMING)
"""Apart from the tables that every database has."""


class Door(EntityRow, entity=doors.Door):
    metadata = DOORS
    __tablename__ = "doors"
    __table_args__ = (SCHEMA,)

    name: Mapped[str]
    knocks: Mapped[int]
    wrong: Mapped[int]


class Visit(VersionedRow):
    """A line of a door's history: only ever added."""

    metadata = DOORS
    __tablename__ = "visits"
    __table_args__ = (
        UniqueConstraint("door_id", "number"),
        CheckConstraint("who <> 'nobody'", name="who"),
        SCHEMA,
    )

    door_id: Mapped[UUID] = mapped_column(ForeignKey("doors.doors.id", ondelete="CASCADE"))
    number: Mapped[int]
    who: Mapped[str]
    at: Mapped[datetime]
    details: Mapped[dict[str, str] | None] = mapped_column(JSONB(none_as_null=True))
    print_: Mapped[bytes | None] = mapped_column("print", LargeBinary)


class DoorPaint(CompanionRow, owner=doors.Door):
    metadata = DOORS
    __tablename__ = "door_paint"
    __table_args__ = (SCHEMA,)

    colour: Mapped[str]


class Key(EntityRow, entity=keys.Key):
    metadata = DOORS
    __tablename__ = "keys"
    __table_args__ = (SCHEMA,)

    door_id: Mapped[UUID | None] = mapped_column(ForeignKey("doors.doors.id"))
    tags: Mapped[Any] = mapped_column(JSONB)
    more: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True))


class KeyDetails(CompanionRow, owner=keys.Key):
    metadata = DOORS
    __tablename__ = "key_details"
    __table_args__ = (SCHEMA,)

    secret_hash: Mapped[bytes] = mapped_column(LargeBinary)
    holder: Mapped[str]
    about: Mapped[Any] = mapped_column(JSONB)


door = table(Door)
visit = table(Visit)
