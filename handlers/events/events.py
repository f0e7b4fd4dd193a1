"""The log of events, and waiting for the stream."""

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import Page
from bus.handling import Published, query
from contracts.events.events import (
    GetEvent,
    ListEvents,
    ListTimeline,
    Publication,
    RecordedEvent,
    TimelineItem,
    WaitForPosition,
)
from handlers.events._event_changes import item
from persistence.events import events


@query
async def list_events(query: ListEvents, *, db: AsyncConnection) -> Page[RecordedEvent]:
    return await events.page(db, query)


@query
async def get_event(query: GetEvent, *, db: AsyncConnection) -> RecordedEvent:
    return await events.get(db, query.id)


@query
async def list_timeline(query: ListTimeline, *, db: AsyncConnection) -> Page[TimelineItem]:
    before, page = await events.timeline(db, query)

    pairs = zip([before, *page.items], page.items, strict=False)
    return Page[TimelineItem](
        items=[item(earlier, event) for earlier, event in pairs], next_cursor=page.next_cursor
    )


@query
async def wait_for_position(query: WaitForPosition, *, published: Published) -> Publication:
    reached = await published.wait(query.position, query.timeout_ms / 1000)

    return Publication(position=query.position, published=reached)
