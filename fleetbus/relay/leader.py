"""The active relay: from the moment it holds the lock until something fails."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from nats.js.api import StreamInfo
from sqlalchemy.ext.asyncio import AsyncConnection

from fleetbus.endings import end
from fleetbus.relay.events import messages
from fleetbus.relay.holes import Cursor, Hole, Step, View, step
from fleetbus.relay.publisher import Publisher
from fleetbus.relay.stream import Stored
from persistence import _outbox
from persistence._outbox import OutboxRow, RelayState

_logger = logging.getLogger(__name__)

MANY_HOLES: Final = 100
"""Holes from which on it is worth asking who may own one."""


@dataclass(slots=True)
class RelayMetrics:
    """What the relay of this process did; `backlog` is known while it is the active one."""

    active: bool = False
    takeovers: int = 0
    published: int = 0
    last_position: int = 0
    errors: int = 0
    holes: int = 0
    backlog: int | None = None
    backlog_age: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Paging:
    """How much is read at once."""

    source: str
    page: int
    lookahead: int


@dataclass(slots=True)
class Leader:
    """Moves the outbox into the stream, a page at a time.

    After any failure it is thrown away, and the next one starts from the saved state and from
    what the stream holds: so no failure needs a repair of its own.
    """

    conn: AsyncConnection
    publisher: Publisher
    paging: Paging
    metrics: RelayMetrics
    cursor: Cursor
    sequence: int
    stored: set[str] = field(default_factory=set)
    ahead: View[OutboxRow] | None = None
    """What lies beyond the cursor, if it has been read already."""

    async def advance(self) -> bool:
        """Publish the next page and save how far it came; true if there may be more to read.

        While a full page is on its way the next one is read. Holes that the first one showed are
        bounded only after that, by a later xid than the bound has to be.
        """
        view, was_read_ahead = self.ahead or await self._look(self.cursor), self.ahead is not None
        decided = step(self.cursor, view)
        sequence = await self._publish_and_look(decided, full=view.examined is not None)
        self.stored.difference_update(row.event_id for row in view.rows)
        if decided.cursor != self.cursor:
            await self._save(decided.cursor, sequence)
        return was_read_ahead or self.ahead is not None

    async def _publish_and_look(self, decided: Step[OutboxRow], *, full: bool) -> int:
        self.ahead = None
        if not full:
            return await self._publish(decided.transactions)
        looking = asyncio.create_task(self._look(decided.cursor))
        try:
            sequence = await self._publish(decided.transactions)
            self.ahead = await looking
        finally:
            await end(looking)
        return sequence

    async def _look(self, cursor: Cursor) -> View[OutboxRow]:
        limit = self.paging.page
        floor = await self._floor(cursor)
        rows, xmin = await self._read(cursor)
        examined = rows[limit - 1].position if len(rows) >= limit else None
        return View(rows, max(xmin, floor), examined)

    async def _floor(self, cursor: Cursor) -> int:
        """With many holes, the lowest xid that can own one; asked before the rows are read.

        `xmin` waits for every transaction there is. One that was forgotten would let the holes
        of whatever is rolled back meanwhile pile up in the state.
        """
        if len(cursor.holes) < MANY_HOLES:
            return 0
        return await _outbox.lowest_writer(self.conn)

    async def _read(self, cursor: Cursor) -> _outbox.OutboxPage:
        """A page, and all that its transactions hold beyond it, however much that is."""
        limit, lookahead = self.paging.page, self.paging.lookahead
        page = await _outbox.read_outbox(self.conn, cursor.wanted, limit, lookahead)
        while len(page.rows) > limit and _reaches(page.rows, limit, lookahead):
            lookahead *= 4
            known = len(page.rows)
            page = await _outbox.read_outbox(self.conn, cursor.wanted, limit, lookahead)
            if len(page.rows) == known:
                break
        return page

    async def _publish(self, transactions: list[list[OutboxRow]]) -> int:
        missing = [
            [
                told
                for row, told in zip(rows, messages(rows, self.paging.source), strict=True)
                if row.event_id not in self.stored
            ]
            for rows in transactions
        ]
        sequence = await self.publisher.publish([rows for rows in missing if rows], self.sequence)
        self.metrics.published += sum(map(len, missing))
        return sequence

    async def _save(self, cursor: Cursor, sequence: int) -> None:
        holes = [(hole.first, hole.last) for hole in cursor.holes]
        xid = await _outbox.save_relay_state(self.conn, cursor.position, holes, sequence)
        self.cursor = cursor.bounded(xid)
        self.sequence = sequence
        self.metrics.last_position = cursor.position
        self.metrics.holes = len(holes)

    async def measure(self) -> None:
        """Note the backlog."""
        waiting = await _outbox.backlog(self.conn)
        self.metrics.backlog, self.metrics.backlog_age = waiting


def _reaches(rows: Sequence[OutboxRow], limit: int, lookahead: int) -> bool:
    """Whether rows beyond the page come near the end of where they were looked for."""
    return rows[-1].position - rows[limit - 1].position > lookahead // 2


def resumed(state: RelayState) -> Cursor:
    """The cursor of a saved state.

    The bounds of its holes are not saved but taken anew: a database restored from a dump counts
    its xids from the beginning, and a bound from before would mean nothing there.
    """
    return Cursor(state.cursor, tuple(Hole(first, last) for first, last in state.holes)).bounded(
        state.xid
    )


def unsaved(stored: list[Stored], cursor: Cursor) -> set[str]:
    """The events in the stream that the saved state does not know as published."""
    return {
        event.event_id
        for event in stored
        if any(first <= event.position <= last for first, last in cursor.wanted)
    }


def report_lost_events(info: StreamInfo, sequence: int) -> None:
    """Say that the stream ends before what was acknowledged."""
    if info.state.last_seq < sequence:
        _logger.error(
            "stream %s ends at sequence %d although %d was acknowledged: it has lost events",
            info.config.name,
            info.state.last_seq,
            sequence,
        )
