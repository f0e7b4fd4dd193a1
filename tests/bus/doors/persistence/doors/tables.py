"""The tables of ``doors``."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, LargeBinary, MetaData, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from bus.storage import EntityRow, VersionedRow, table
from bus.storage.tables import NAMING
from tests.bus.doors.contracts.doors import doors

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


door = table(Door)
visit = table(Visit)
