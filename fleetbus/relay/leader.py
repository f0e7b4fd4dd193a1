"""The active relay: from the moment it holds the lock until something fails."""

import logging
from dataclasses import dataclass, field
from datetime import timedelta

from nats.js.api import StreamInfo
from sqlalchemy.ext.asyncio import AsyncConnection

from fleetbus.relay.events import message
from fleetbus.relay.holes import Cursor, Hole, View, step
from fleetbus.relay.publisher import Publisher
from fleetbus.relay.stream import Stored
from persistence import _outbox
from persistence._outbox import OutboxRow, RelayState

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class RelayMetrics:
    """What the relay of this process did; `backlog` is known while it is the active one.

    `errors` counts what interrupted it, `publish_errors` those of them that came from the stream.
    """

    active: bool = False
    takeovers: int = 0
    published: int = 0
    last_position: int = 0
    errors: int = 0
    publish_errors: int = 0
    last_error: str = ""
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

    async def advance(self) -> bool:
        """Publish the next page and save how far it came; true if there is more to read."""
        view = await self._look()
        decided = step(self.cursor, view)
        sequence = await self._publish(decided.transactions)
        self.stored.difference_update(row.event_id for row in view.rows)
        if decided.cursor != self.cursor:
            await self._save(decided.cursor, sequence)
        return view.examined is not None

    async def _look(self) -> View[OutboxRow]:
        limit = self.paging.page
        rows, xmin = await _outbox.read_outbox(
            self.conn, self.cursor.wanted, limit, self.paging.lookahead
        )
        return View(rows, xmin, rows[limit - 1].position if len(rows) >= limit else None)

    async def _publish(self, transactions: list[list[OutboxRow]]) -> int:
        missing = [
            [message(row, self.paging.source) for row in rows if row.event_id not in self.stored]
            for rows in transactions
        ]
        try:
            sequence = await self.publisher.publish(
                [rows for rows in missing if rows], self.sequence
            )
        except Exception:
            self.metrics.publish_errors += 1
            raise
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
        found = await _outbox.backlog(self.conn)
        self.metrics.backlog, self.metrics.backlog_age = found.waiting, found.oldest


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
