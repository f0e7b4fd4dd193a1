"""The tables of a domain of toys, as text; as in ``texts``."""

TABLES_HEAD = '''
"""The tables of a context."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from bus.storage import EntityRow, one_of, table
from toys.contracts.AREA import NOUNS
'''

TABLE = """

class Toy(EntityRow, entity=toys.Toy):
    __tablename__ = "toys"
    __table_args__ = (
        one_of("status", toys.ToyStatus),
        one_of("priority", toys.ToyPriority),
        Index("ix_toys__created_at_id", "created_at", "id"),
        {"schema": "AREA"},
    )

    name: Mapped[str]
    description: Mapped[str | None]
    url: Mapped[str | None]
    priority: Mapped[str] = mapped_column(server_default="medium")
    status: Mapped[str] = mapped_column(server_default="new")
    owner_id: Mapped[UUID | None]
    size: Mapped[int] = mapped_column(server_default="0")
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    archived_at: Mapped[datetime | None]


toy = table(Toy)
"""
