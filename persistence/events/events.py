"""Queries of the log: the outbox, by position."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from pydantic_core import from_json, to_json
from sqlalchemy import ColumnElement, Select, Text, case, cast, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import ListOf, Page
from bus.storage import paging as _paging
from bus.storage import room_for_page
from bus.storage.own.short_forms import shortened
from bus.storage.own.tables import outbox
from contracts.events.events import EventNotFound, ListEvents, ListTimeline, RecordedEvent

SLACK: Final = 10_000
"""Positions by which the order of times and that of positions may differ.

Both are taken in one statement, so transactions that run side by side swap neighbours; more only
happens where the database's clock was set back.
"""

ROOM: Final = 960 * 1024
"""Bytes of the bodies in a reply; fewer where the server takes smaller messages."""

_BESIDE: Final = 1024
"""What an event says beside its body, at most."""

_ALWAYS: Final = 2

_COLUMNS: Final = select(
    outbox.c.event_id.label("id"),
    outbox.c.position,
    outbox.c.type,
    outbox.c.entity_id.label("entity"),
    outbox.c.recorded_at.label("time"),
    outbox.c.cause,
    outbox.c.traceparent,
    outbox.c.data,
)


async def page(db: AsyncConnection, query: ListEvents) -> Page[RecordedEvent]:
    """A page of the events that pass the filters."""
    descending = query.order.startswith("-")
    place = outbox.c.position
    where = await _between(db, query.since, query.until)
    if where is None:
        return Page[RecordedEvent](items=[])
    if query.type is not None:
        where.append(outbox.c.type == query.type)
    if query.entity is not None:
        where.append(outbox.c.entity_id == query.entity)
    if query.cursor is not None:
        last = _position(query)
        where.append(place < last if descending else place > last)
    order = place.desc() if descending else place
    statement = _COLUMNS.where(*where).order_by(order).limit(query.limit + 1)
    room = _room()
    bounded = _bounded(statement, room, descending=descending)
    return _cut(query, await _read(db, bounded, room), room)


async def get(db: AsyncConnection, event_id: UUID) -> RecordedEvent:
    """The event with this id, or ``EventNotFound``."""
    found = await _read(db, _COLUMNS.where(outbox.c.event_id == event_id), _room())
    if not found or found[0] is None:
        raise EventNotFound(id=event_id)
    return found[0]


async def timeline(
    db: AsyncConnection, query: ListTimeline
) -> tuple[RecordedEvent | None, Page[RecordedEvent]]:
    """A page of what was told of an entity, and the event before its first one."""
    last = _position(query) if query.cursor is not None else 0
    statement = _COLUMNS.where(outbox.c.entity_id == query.entity, outbox.c.position >= last)
    # What changed is told twice, before and after.
    room = _room() // 4
    bounded = _bounded(statement.order_by(outbox.c.position).limit(query.limit + 2), room)
    found = await _read(db, bounded, room)
    before = found.pop(0) if found and found[0] and found[0].position == last else None
    return before, _cut(query, found, room)


def _room() -> int:
    return min(ROOM, room_for_page() * 15 // 16)


async def _between(
    db: AsyncConnection, since: datetime | None, until: datetime | None
) -> list[ColumnElement[bool]] | None:
    """Conditions on time, and on positions, which keep a page cheap; None if nothing is there.

    Without those on positions, whoever asks for what is new would read all that is old.
    """
    when, place = outbox.c.recorded_at, outbox.c.position
    where = []
    if since is not None:
        first = await db.scalar(select(place).where(when >= since).order_by(when, place).limit(1))
        if first is None:
            return None
        where += [when >= since, place >= first - SLACK]
    if until is not None:
        last = await db.scalar(
            select(place).where(when < until).order_by(when.desc(), place.desc()).limit(1)
        )
        if last is None:
            return None
        where += [when < until, place <= last + SLACK]
    return where


def _bounded(statement: Select[Any], room: int, *, descending: bool = False) -> Select[Any]:
    """The rows of a page; those behind the first ones that fill a reply come without their bodies.

    The first two come with theirs however large: a page is never empty because of one event.
    """
    page = statement.subquery("page")
    order = page.c.position.desc() if descending else page.c.position
    size = func.sum(func.octet_length(cast(page.c.data, Text))).over(order_by=order)
    first = func.row_number().over(order_by=order) <= _ALWAYS
    others = [column for column in page.c if column.name != "data"]
    body = case((or_(size <= room, first), page.c.data)).label("data")
    return select(*others, body).order_by(order)


async def _read(
    db: AsyncConnection, statement: Select[Any], room: int
) -> list[RecordedEvent | None]:
    """The events; None for one whose body was left out."""
    rows = (await db.execute(statement)).mappings()
    return [_recorded(row, room) if row["data"] is not None else None for row in rows]


def _recorded(row: Mapping[Any, Any], room: int) -> RecordedEvent:
    """An event, in its short form if it does not fit a reply alone."""
    event = RecordedEvent(**row)
    if _size(event) <= room:
        return event
    noun = event.type.partition(".")[0]
    cut = from_json(shortened(to_json(event.data).decode(), noun, room - _BESIDE))
    return event.model_copy(update={"data": cut, "shortened": True})


def _size(event: RecordedEvent) -> int:
    return len(to_json(event.data)) + _BESIDE


def _position(query: ListOf[Any]) -> int:
    """The position that a cursor points to."""
    value: int = _paging.decode(query, outbox.c.position, outbox.c.event_id).value
    return value


def _cut(query: ListOf[Any], found: list[RecordedEvent | None], room: int) -> Page[RecordedEvent]:
    """As many as fit a reply, one at least."""
    items: list[RecordedEvent] = []
    for event in found[: query.limit]:
        if event is None or (items and _size(event) > room):
            break
        room -= _size(event)
        items.append(event)
    more = len(found) > len(items)
    cursor = _paging.encode(query, items[-1].position, items[-1].id) if more else None
    return Page[RecordedEvent](items=items, next_cursor=cursor)
