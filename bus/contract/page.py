"""Lists: a query that answers one page of entities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar

from pydantic import (
    BaseModel,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
)
from pydantic_core import to_json

from bus.contract.entity import Entity
from bus.contract.fields import TimeOrder
from bus.contract.items import joined
from bus.contract.model import Reply
from bus.contract.operation import Query

T = TypeVar("T")


class Page(Reply, Generic[T]):
    """One page of a list; ``next_cursor`` is null on the last one."""

    items: list[T]
    """What this page holds, in the order that was asked for."""
    next_cursor: str | None = None
    """What the next page is asked for with, as ``cursor``; null if this is the last one."""
    total: int | None = None
    """How many items there are on all pages; only if ``count: "exact"`` was asked for."""

    @model_serializer(mode="wrap")
    def _total_only_if_counted(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        body: dict[str, Any] = handler(self)
        if self.total is None:
            body.pop("total", None)
        return body

    def encoded(self) -> bytes:
        """A page of entities as JSON, made of theirs."""
        rest: dict[str, Any] = {"next_cursor": self.next_cursor}
        if self.total is not None:
            rest["total"] = self.total
        return b'{"items":[' + joined(self.items) + b"]," + to_json(rest)[1:]


Cursor = Annotated[str, StringConstraints(min_length=1, max_length=2_000)]
"""The ``next_cursor`` of the previous page; opaque."""


class ListOf(Query[Page[T]], Generic[T]):
    """A query that returns one page; subclasses add filters and redeclare ``order``."""

    limit: Annotated[int, Field(ge=1, le=500)] = 50
    """Items per page, 1–500."""
    cursor: Cursor | None = None
    """The ``next_cursor`` of the page before this one; null for the first page."""
    if TYPE_CHECKING:
        order: str = "created_at"  # subclasses narrow it to the orders that they offer
    else:
        order: TimeOrder = "created_at"
        """The column to order by; ``-`` reverses the order. Ties are broken by id."""
    count: Literal["none", "exact"] = "none"
    """``exact`` adds ``total``, at the cost of counting."""

    @classmethod
    def reply_of(cls, parameter: type[Reply]) -> type[Reply]:
        """A page of what the list is of."""
        return Page[parameter]  # type: ignore[valid-type]  # known only now

    @property
    def expensive(self) -> bool:
        """A page by an index costs the same however much there is; a search or a count does not."""
        searched = getattr(self, "search", None) is not None
        return super().expensive or searched or self.count == "exact"


def item_of(reply: type[BaseModel]) -> type[Entity] | None:
    """What a reply is a page of, if it is one of entities."""
    generic = reply.__pydantic_generic_metadata__
    if generic["origin"] is not Page:
        return None
    [item] = generic["args"]
    return item if isinstance(item, type) and issubclass(item, Entity) else None
