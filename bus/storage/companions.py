"""Rows that lie beside an entity, one of a kind at most: under its id, and gone with it."""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import ForeignKey
from sqlalchemy.orm import mapped_column

from bus.contract.entity import Entity
from bus.contract.refusals import DeclarationError
from bus.storage.tables import TABLES, VersionedRow


class CompanionRow(VersionedRow):
    """A table of what is told of an entity in no reply, list or event of it.

    ``class SessionDetails(CompanionRow, owner=Session)``. A query by id takes one as a parameter,
    ``details: SessionDetails | None``; it is written ``beside`` its owner.
    """

    __abstract__ = True

    owned_by: ClassVar[type[Entity]]

    def __init_subclass__(cls, *, owner: type[Entity] | None = None, **kwargs: Any) -> None:
        if cls.__dict__.get("__abstract__"):
            super().__init_subclass__(**kwargs)
            return
        if owner is None:
            raise DeclarationError(f"{cls.__qualname__} needs owner=, the entity that it is beside")
        if owner not in TABLES:
            raise DeclarationError(
                f"{cls.__qualname__} belongs to a {owner.noun}: no table holds one"
            )
        theirs = TABLES[owner].c.id
        owned = ForeignKey(theirs, ondelete="CASCADE")
        cls.id = mapped_column(theirs.type, owned, primary_key=True, sort_order=-4)
        cls.owned_by = owner
        super().__init_subclass__(ends_with=owner, **kwargs)
