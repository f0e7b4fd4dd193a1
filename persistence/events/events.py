"""Queries of the log: the outbox, by position."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts._declare import ListOf, Page
from contracts.events.events import EventNotFound, ListEvents, ListTimeline, RecordedEvent
from persistence import _paging
from persistence._bus_tables import outbox

SLACK: Final = 10_000
"""Positions by which the order of times and that of positions may differ.

Both are taken in one statement, so transactions that run side by side swap neighbours; more only
happens where the database's clock was set back.
"""

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
    return _cut(query, await _read(db, statement))


async def get(db: AsyncConnection, event_id: UUID) -> RecordedEvent:
    """The event with this id, or ``EventNotFound``."""
    found = await _read(db, _COLUMNS.where(outbox.c.event_id == event_id))
    if not found:
        raise EventNotFound(id=event_id)
    return found[0]


async def told_of(
    db: AsyncConnection, query: ListTimeline
) -> tuple[RecordedEvent | None, Page[RecordedEvent]]:
    """A page of what was told of an entity, and the event before its first one."""
    last = _position(query) if query.cursor is not None else 0
    statement = _COLUMNS.where(outbox.c.entity_id == query.entity, outbox.c.position >= last)
    found = await _read(db, statement.order_by(outbox.c.position).limit(query.limit + 2))
    before = found.pop(0) if found and found[0].position == last else None
    return before, _cut(query, found)


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


async def _read(db: AsyncConnection, statement: Select[Any]) -> list[RecordedEvent]:
    return [RecordedEvent(**row) for row in (await db.execute(statement)).mappings()]


def _position(query: ListOf[Any]) -> int:
    """The position that a cursor points to."""
    value: int = _paging.decode(query, outbox.c.position, outbox.c.event_id).value
    return value


def _cut(query: ListOf[Any], found: list[RecordedEvent]) -> Page[RecordedEvent]:
    items = found[: query.limit]
    more = len(found) > query.limit
    cursor = _paging.encode(query, items[-1].position, items[-1].id) if more else None
    return Page[RecordedEvent](items=items, next_cursor=cursor)
