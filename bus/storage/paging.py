"""Keyset pages: a page costs the same at row ten million, and no row is skipped or told twice."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property, lru_cache
from typing import Any, Final, Generic, NamedTuple, TypeVar, cast, get_args
from uuid import UUID

import pydantic_core
from asyncpg import Record
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import (
    BigInteger,
    Column,
    Integer,
    Select,
    bindparam,
    func,
    literal,
    select,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.entity import Entity
from bus.contract.errors import FieldError, InvalidRequest
from bus.contract.fields import MAX_INT4, MAX_INT8, Text, Time
from bus.contract.items import EncodedItems
from bus.contract.page import ListOf, Page, item_of
from bus.contract.refusals import DeclarationError
from bus.storage.driver import Compiled, compiled, fetch
from bus.storage.encoding import Encoding, encoding
from bus.storage.entities import require
from bus.storage.filters import Condition, Filters
from bus.storage.presence import present
from bus.storage.shortening import how_many_fit, shorten
from bus.storage.sizes import room_for_page
from bus.storage.tables import TABLES

E = TypeVar("E", bound=Entity)

_STATEMENTS: Final = 256
"""How many texts of a list are kept."""

_KEYS: Mapping[type, TypeAdapter[Any]] = {
    datetime: TypeAdapter(Time),
    date: TypeAdapter(date),
    str: TypeAdapter(Text),
    int: TypeAdapter(int),
    UUID: TypeAdapter(UUID),
}


@dataclass(frozen=True)
class _Key:
    """Where a page ends: the value of the order column and the id of its last item."""

    value: Any
    id: UUID | str


class _Shape(NamedTuple):
    """What the text of a statement depends on."""

    order: str
    further: bool
    """Whether there was a page before."""
    given: tuple[tuple[str, Any], ...]
    """The filters that are given, with the value where each has a condition of its own."""


LISTINGS: dict[type[ListOf[Any]], Listing[Any]] = {}
"""What answers each operation that lists."""


class Listing(Generic[E]):
    """How an operation lists: one statement for each combination of filters, compiled once.

    It answers the operation, unless that has a handler. In the conditions of its filters values are
    named parameters, or part of the text. ``query.order`` names a column of the entity that is
    never null; ``-`` turns it round. ``within`` is the entity that the ``id`` of the query names,
    where the list is what belongs to one; ``by_now`` says that a condition has a parameter ``now``.
    """

    def __init__(
        self,
        operation: type[ListOf[E]],
        filters: Filters | None = None,
        *,
        within: type[Entity] | None = None,
        by_now: bool = False,
    ) -> None:
        self._entity = entity = _listed(operation)
        self._filters = filters or {}
        self._within = within
        self.by_now = by_now
        self._table = TABLES[entity]
        self._page = lru_cache(_STATEMENTS)(self._compile_page)
        self._count = lru_cache(_STATEMENTS)(self._compile_count)

        self._check(operation)
        if LISTINGS.setdefault(operation, self) is not self:
            raise DeclarationError(f"{operation.__qualname__} has a Listing already")

    async def answer(self, query: ListOf[E], *, db: AsyncConnection, **values: Any) -> Page[E]:
        """The reply to a query: its page, or the refusal of what it would lie within."""
        page = await self.page(db, query, **values)
        if self._within is not None and not page.items:
            id_: UUID = query.id  # type: ignore[attr-defined]  # _check has looked for it
            await require(db, self._within, id_)
        return page

    async def page(self, db: AsyncConnection, query: ListOf[E], **values: Any) -> Page[E]:
        """The page that a query asks for; ``values`` are bound beside its fields."""
        given = {
            name: value for name in self._filters if (value := getattr(query, name)) is not None
        }
        shape = _Shape(query.order, query.cursor is not None, tuple(self._chosen(given)))
        values |= given | {"rows": query.limit + 1}
        if query.cursor is not None:
            column = self._table.c[query.order.removeprefix("-")]
            key = decode(query, column)
            values |= {"after": key.value, "after_id": key.id}
        room = room_for_page()
        rows = await fetch(db, self._page(shape), values | {"room": room})
        texts, more, shortened = self._fitting(rows, query.limit, room)
        cursor = _cursor(query, texts[-1]) if more else None
        total = None
        if query.count == "exact":
            [[total]] = await fetch(db, self._count(shape.given), values)
        items = cast("list[E]", EncodedItems(self._entity, texts, shortened=shortened))
        # Not validated: the items are trusted, and the rest is ours.
        return Page.model_construct(items=items, next_cursor=cursor, total=total)

    def _fitting(
        self, rows: Sequence[Record], limit: int, room: int
    ) -> tuple[list[str], bool, bool]:
        """The items that fit a reply, whether there are more, and whether one had to be shortened.

        The database leaves out what lies behind the first item that is too much by its measure,
        which is a little larger than ours: that one may be the last or not.
        """
        finished = self._encoding.finished
        texts = [finished(item) for item, _ in rows[:limit]]
        fitting = how_many_fit(texts, room)
        if len(texts) > 1 and rows[len(texts) - 1]["over"]:
            fitting = min(fitting, len(texts) - 1)
        if fitting == len(texts):
            return texts, len(rows) > limit or bool(rows and rows[-1]["over"]), False
        if fitting:
            return texts[:fitting], True, False
        short = shorten(self._entity, texts[0].encode(), room).decode()
        return [short], len(rows) > 1 or rows[0]["over"], True

    def _check(self, operation: type[ListOf[E]]) -> None:
        """Refuse a filter or an order that there is not, and a field that would change nothing."""
        fields = operation.model_fields
        if odd := (fields.keys() - ListOf.model_fields.keys()) ^ self._filters.keys():
            raise DeclarationError(
                f"the Listing of {operation.__qualname__} and its fields differ in "
                f"{', '.join(sorted(odd))}: it has a condition for each field"
            )
        if self._within is not None and "id" not in fields:
            raise DeclarationError(f"{operation.__qualname__} has no id that its list lies within")
        orders = {order.removeprefix("-") for order in get_args(fields["order"].annotation)}
        if odd := orders - {*self._table.c.keys()}:
            raise DeclarationError(
                f"{operation.__qualname__} orders by {', '.join(sorted(odd))}: no such column"
            )

    @cached_property
    def _encoding(self) -> Encoding:
        return encoding(self._entity)

    def _chosen(self, given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        for name, value in given.items():
            yield name, value if isinstance(self._filters[name], Mapping) else None

    def _where(self, given: Iterable[tuple[str, Any]]) -> Iterator[Condition]:
        for name, value in given:
            found = self._filters[name]
            yield found[value] if isinstance(found, Mapping) else found

    def _compile_page(self, shape: _Shape) -> Compiled:
        table, descending = self._table, shape.order.startswith("-")
        column = table.c[shape.order.removeprefix("-")]
        where = [*self._where(shape.given), *present(self._entity)]
        if shape.further:
            ends = {"after": column, "after_id": table.c.id}
            last = [bindparam(name, type_=each.type) for name, each in ends.items()]
            where.append(_behind(column, table.c.id, last, descending=descending))
        direction = (column.desc(), table.c.id.desc()) if descending else (column, table.c.id)
        item = self._encoding.item.label("item")
        items = select(item).select_from(table).where(*where).order_by(*direction)
        return compiled(_cut(items.limit(bindparam("rows", type_=Integer))))

    def _compile_count(self, given: tuple[tuple[str, Any], ...]) -> Compiled:
        counted = select(func.count()).select_from(self._table)
        return compiled(counted.where(*self._where(given), *present(self._entity)))


def _listed(operation: type[ListOf[E]]) -> type[E]:
    entity = item_of(operation.declared.reply)
    if entity not in TABLES:
        raise DeclarationError(f"{operation.__qualname__} lists what no table holds")
    return cast("type[E]", entity)


def _cut(items: Select[Any]) -> Select[Any]:
    """The items of a page up to the first with which it is larger than a reply may be."""
    page = items.subquery("page")
    up_to = func.sum(func.octet_length(page.c.item)).over(rows=(None, 0)).label("up_to")
    sized = select(page.c.item, up_to).subquery("sized")
    room = bindparam("room", type_=BigInteger)
    over = (sized.c.up_to > room).label("over")
    return select(sized.c.item, over).where(sized.c.up_to - func.octet_length(sized.c.item) <= room)


def _cursor(query: ListOf[Any], item: str) -> str:
    """The cursor behind an item, whose fields are spelled as a cursor spells them."""
    last = pydantic_core.from_json(item)
    return encode(query, last[query.order.removeprefix("-")], last["id"])


def encode(query: ListOf[Any], value: Any, id_: UUID | str) -> str:
    """The opaque cursor behind an item of a list."""
    content = pydantic_core.to_json([query.declared.subject, query.order, value, id_])
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def decode(query: ListOf[Any], column: Column[Any], id_column: Column[Any] | None = None) -> _Key:
    """Where a cursor points; a cursor of another list or order, or none at all, is refused."""
    id_column = column.table.c.id if id_column is None else id_column
    assert query.cursor is not None
    try:
        padded = query.cursor + "=" * (-len(query.cursor) % 4)
        content = base64.b64decode(padded.encode("ascii"), altchars=b"-_", validate=True)
        subject, order, value, id_ = pydantic_core.from_json(content)
        id_ = _KEYS[id_column.type.python_type].validate_python(id_)
        key = _Key(_KEYS[column.type.python_type].validate_python(_typed(value, column)), id_)
    except (ValueError, TypeError, AttributeError, binascii.Error, ValidationError):
        raise _refused("is not a cursor of this list") from None
    if (subject, order) != (query.declared.subject, query.order):
        raise _refused("belongs to another list or another order")
    return key


def _typed(value: Any, column: Column[Any]) -> Any:
    expected = int if column.type.python_type is int else str
    largest = MAX_INT8 if isinstance(column.type, BigInteger) else MAX_INT4
    if type(value) is not expected or (isinstance(value, int) and abs(value) > largest):
        raise ValueError
    return value


def _refused(message: str) -> InvalidRequest:
    return InvalidRequest(errors=[FieldError(field="cursor", message=message)])


def after(
    column: Column[Any], id_: Column[Any], query: ListOf[Any], *, descending: bool
) -> Condition:
    """What lies behind the cursor of a query."""
    key = decode(query, column, id_)
    last = (literal(key.value, column.type), literal(key.id, id_.type))
    return _behind(column, id_, last, descending=descending)


def _behind(
    column: Column[Any], id_: Column[Any], last: Sequence[Any], *, descending: bool
) -> Condition:
    place = tuple_(column, id_)
    return place < tuple_(*last) if descending else place > tuple_(*last)
