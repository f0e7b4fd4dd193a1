"""The stream compared with the outbox: what it lost, and whether both tell of one past.

Both are read in pages; what is kept between them is a bit for each position.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import StreamInfo
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage.own import reconciliation as _reconciliation
from bus.storage.own import timelines as _timelines
from bus.storage.own.outbox import OutboxRow, RelayState
from bus.storage.own.reconciliation import Extent, Mark
from fleetbus.server.relay.claims import claimed
from fleetbus.server.relay.holes import LAST_POSITION
from fleetbus.server.relay.ownership import (
    looks_published_by_a_relay,
    owed,
    rows_of,
    tells,
    told_before,
)
from fleetbus.server.relay.positions import PositionSet, Ranges, within, without
from fleetbus.server.relay.reading import Found, found_between
from fleetbus.server.relay.stream import Stored, events_in, id_at, stored_after

_PAGE: Final = 5000
_FRONT: Final = 1000
_CLOCKS_APART: Final = 300.0
_FEW: Final = 20_000
"""Messages that are read one by one, with their bodies; of more the headers have to do."""


class TimelineConflict(Exception):
    """The stream holds events that this database does not have: one of both is from another past.

    The database was restored from an older copy, or another one writes to this stream.
    """

    def __init__(self, event: Stored, why: str) -> None:
        super().__init__(
            f"the stream has event {event.event_id} at position {event.position} (sequence "
            f"{event.sequence}), but {why}: the database was restored from an older copy, or the "
            "stream belongs to another one"
        )


@dataclass(slots=True)
class Comparison:
    """One comparison, in steps: read the stream, then look for what the outbox has."""

    conn: AsyncConnection
    js: JetStreamContext
    info: StreamInfo
    client: Client | None = None
    """Given it, what is new in the stream is read with its bodies."""
    seen: PositionSet = field(default_factory=PositionSet)
    front: int = 0
    """The highest position among the first events of a stream that is read from its beginning."""
    highest: int = 0
    """The highest position in the stream, of whichever timeline."""
    foreign: list[Found] = field(default_factory=list)
    """Messages that are not ours, as far as was read."""
    last_own: int = 0
    """The sequence of the last event of ours that was read."""
    _in_front: int = 0
    checked: int = 0
    missing: int = 0
    missing_first: int = 0
    missing_last: int = 0

    async def read_stream(
        self, after: int, *, accepted: int | None = None, state: RelayState | None = None
    ) -> AsyncGenerator[None]:
        """Note what the stream holds after a sequence. Raises `TimelineConflict`.

        Up to the `accepted` sequence (else the one that a person accepted) what the outbox does
        not know is of another timeline, and left alone. Who takes over gives the relay's saved
        `state`: all after that sequence is new, and judged one by one.
        """
        if accepted is None:
            accepted = await _timelines.accepted_sequence(self.conn, created_at(self.info))
        extent = await _reconciliation.extent(self.conn)
        few = state is not None and self.info.state.last_seq - after <= _FEW
        async with aclosing(self._pages(after, few=few)) as pages:
            async for page in pages:
                if after < self.info.state.first_seq:
                    self._note_front(page)
                rows = await rows_of(self.conn, [event.found for event in page], bodies=few)
                for event in page:
                    extent = await self._note(event, rows, accepted, extent, state)
                yield

    async def _pages(self, after: int, *, few: bool) -> AsyncGenerator[list[Stored]]:
        if not few or self.client is None:
            read = stored_after(self.js, self.info, after, strangers=self.foreign)
            async with aclosing(read) as events:
                async for page in events:
                    yield page
            return
        name, last = self.info.config.name or "", self.info.state.last_seq
        first = max(after + 1, self.info.state.first_seq)
        async with aclosing(found_between(self.client, name, first, last)) as found:
            async for several in found:
                yield events_in(several, self.foreign)

    async def look_for(self, ranges: Ranges) -> AsyncGenerator[None]:
        """Count what the outbox has in these ranges and the stream was not seen to hold."""
        since = oldest_kept(self.info)
        if (self.info.config.max_msgs_per_subject or 0) > 0:
            # Any event may have made room for another one: nothing can be said.
            return
        for first, last in within(ranges, self._floor, LAST_POSITION):
            after = first - 1
            while positions := await _reconciliation.positions_between(
                self.conn, after + 1, last, since=since, limit=_PAGE
            ):
                after = positions[-1]
                self._count(positions)
                yield

    async def mark(self, state: RelayState) -> Mark | None:
        """What to recognise this stream by; None if the event that was saved last is not there."""
        sequence = state.stream_sequence
        event_id = await id_at(self.js, self.info.config.name or "", sequence) if sequence else None
        if not event_id:
            return None
        return Mark(*_shape(self.info), sequence, event_id, state.cursor, tuple(state.holes))

    def _note_front(self, page: list[Stored]) -> None:
        """What a limit dropped stood before these; few came later and have lower positions."""
        left = max(1, min(_FRONT, self.info.state.messages // 10)) - self._in_front
        self._in_front += len(page[: max(0, left)])
        self.front = max([self.front, *(event.position for event in page[: max(0, left)])])

    async def _note(
        self,
        event: Stored,
        rows: dict[int, OutboxRow],
        accepted: int,
        extent: Extent,
        state: RelayState | None,
    ) -> Extent:
        """Judge one message; returns what the outbox holds, as far as it was looked at again."""
        self.highest = max(self.highest, event.position)
        row = rows.get(event.position)
        if row is not None and row.event_id == event.event_id:
            if tells(event.found, row) and await self._is_first(event, row, state):
                self.seen.add(event.position)
                self.last_own = event.sequence
            else:
                self.foreign.append(event.found)
            return extent
        if event.sequence <= accepted and claimed(event.found.headers):
            return extent
        why = _conflict(event, row.event_id if row else None, extent)
        if not looks_published_by_a_relay(event.found):
            if why or state is not None or claimed(event.found.headers) is None:
                self.foreign.append(event.found)
        elif why:
            # Old rows may have been dropped, and new ones recorded, since the extent was read.
            extent = await _reconciliation.extent(self.conn)
            if _conflict(event, row.event_id if row else None, extent):
                raise TimelineConflict(event, why)
        return extent

    async def _is_first(self, event: Stored, row: OutboxRow, state: RelayState | None) -> bool:
        """Whether no message before this one tells the same event."""
        if event.position in self.seen:
            return False
        if state is None or self.client is None or owed(state, event.position):
            return True
        # It was published before the state was saved, or is a repair that was interrupted.
        name = self.info.config.name or ""
        return looks_published_by_a_relay(event.found) and not await told_before(
            self.client, name, event.found, row
        )

    def _count(self, positions: Sequence[int]) -> None:
        self.checked += len(positions)
        missing = [position for position in positions if position not in self.seen]
        if missing:
            self.missing += len(missing)
            self.missing_first = self.missing_first or missing[0]
            self.missing_last = missing[-1]

    @property
    def _floor(self) -> int:
        """The first position to look for: a stream with a limit drops what is oldest."""
        config = self.info.config
        limited = max(config.max_msgs or 0, config.max_bytes or 0) > 0
        return max(1, self.front) if limited and self.info.state.first_seq > 1 else 1


def expected(state: RelayState, mark: Mark | None) -> Ranges:
    """The positions that the stream must hold, but for those below the mark."""
    since = (*mark.holes, (mark.cursor + 1, state.cursor)) if mark else ((1, state.cursor),)
    return without(tuple(part for part in since if part[0] <= part[1]), tuple(state.holes))


async def unchanged(js: JetStreamContext, info: StreamInfo, mark: Mark) -> bool:
    """Whether the stream still holds all that it held when the mark was made.

    Streams only grow at the end, and a sequence is never used twice. So with nothing removed, and
    the same event at the marked sequence, all before it is as it was.
    """
    created, first, deleted = _shape(info)
    if created != mark.created_at:
        return False
    if has_limits(info):
        # Gaps go with the events that a limit drops.
        moved = mark.first_sequence < first <= mark.sequence
        same = deleted <= mark.deleted if moved else (first, deleted) == _place(mark)
    else:
        same = first + deleted == sum(_place(mark))
    return same and await id_at(js, info.config.name or "", mark.sequence) == mark.event_id


def looks_whole(info: StreamInfo) -> bool:
    """Whether nothing was ever removed from the stream, as far as its figures tell."""
    _, first, deleted = _shape(info)
    return has_limits(info) or (first <= 1 and deleted == 0)


def has_limits(info: StreamInfo) -> bool:
    """Whether the stream drops old events by itself."""
    config = info.config
    return max(config.max_msgs or 0, config.max_bytes or 0, config.max_age or 0) > 0


def oldest_kept(info: StreamInfo) -> datetime | None:
    """The time before which the stream may have dropped events by their age.

    Its clock is not the one that recorded them.
    """
    age = info.config.max_age
    if not age:
        return None
    return datetime.now(UTC) - timedelta(seconds=age - min(_CLOCKS_APART, age / 10))


def created_at(info: StreamInfo) -> datetime:
    """When the stream was created: what tells it from another one of its name."""
    assert info.created is not None
    return info.created


def _place(mark: Mark) -> tuple[int, int]:
    return mark.first_sequence, mark.deleted


def _shape(info: StreamInfo) -> tuple[datetime, int, int]:
    return created_at(info), info.state.first_seq, info.state.num_deleted or 0


def _conflict(event: Stored, known: str | None, extent: Extent) -> str:
    if known is not None:
        return f"the outbox has {known} there"
    if event.position > extent.taken:
        return f"the outbox has only reached position {extent.taken}"
    if extent.first is None or event.position < extent.first or _older(event, extent):
        return ""
    return "the outbox has nothing there"


def _older(event: Stored, extent: Extent) -> bool:
    """Whether it was recorded before all that the outbox keeps: it may have been dropped there."""
    if extent.first_recorded_at is None:
        return True
    try:
        return datetime.fromisoformat(event.time) < extent.first_recorded_at
    except (ValueError, TypeError):  # what is no time, or one without a zone
        return False
