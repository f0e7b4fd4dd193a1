"""The active relay: from the moment it holds the lock until something fails."""

from dataclasses import dataclass, field
from datetime import timedelta

from nats.aio.client import Client
from sqlalchemy.ext.asyncio import AsyncConnection

from fleetbus.relay.events import message
from fleetbus.relay.holes import Cursor, Hole, View, step
from fleetbus.relay.positions import PositionSet
from fleetbus.relay.publisher import Publisher
from persistence import _outbox
from persistence._outbox import OutboxRow, RelayState


@dataclass(slots=True)
class RelayMetrics:
    """What the relay of this process did; `backlog` is known while it is the active one.

    `errors` counts what interrupted it, `publish_errors` those of them that came from the stream.
    """

    active: bool = False
    takeovers: int = 0
    published: int = 0
    repaired: int = 0
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
    client: Client
    publisher: Publisher
    paging: Paging
    metrics: RelayMetrics
    cursor: Cursor
    sequence: int
    """Where the stream ends."""
    saved_sequence: int
    stored: PositionSet = field(default_factory=PositionSet)
    """What the stream holds after the saved sequence."""
    doubtful: bool = False
    """Whether the server took something for a duplicate that the stream was not seen to hold."""

    async def advance(self) -> bool:
        """Publish the next page and save how far it came; true if there is more to read."""
        view = await self._look()
        decided = step(self.cursor, view)
        before = self.sequence
        sent = await self._publish(decided.transactions)
        self.metrics.published += sent
        self.doubtful |= self.sequence - before < sent
        if decided.cursor != self.cursor:
            await self._save(decided.cursor)
        return view.examined is not None

    async def append(self, transactions: list[list[OutboxRow]]) -> None:
        """Publish again what the stream lost; counts what the stream took."""
        before = self.sequence
        await self._publish(transactions)
        self.metrics.repaired += self.sequence - before
        await self._save(self.cursor)

    async def _look(self) -> View[OutboxRow]:
        limit = self.paging.page
        rows, xmin = await _outbox.read_outbox(
            self.conn, self.cursor.wanted, limit, self.paging.lookahead
        )
        return View(rows, xmin, rows[limit - 1].position if len(rows) >= limit else None)

    async def _publish(self, transactions: list[list[OutboxRow]]) -> int:
        missing = [
            [message(row, self.paging.source) for row in rows if row.position not in self.stored]
            for rows in transactions
        ]
        batches = [rows for rows in missing if rows]
        try:
            self.sequence = await self.publisher.publish(batches, self.sequence)
        except Exception:
            self.metrics.publish_errors += 1
            raise
        return sum(map(len, batches))

    async def _save(self, cursor: Cursor) -> None:
        holes = [(hole.first, hole.last) for hole in cursor.holes]
        # As long as there are events in the stream that the cursor has not come to, whoever takes
        # over must read them there once more.
        if cursor.position >= self.stored.highest:
            self.saved_sequence = self.sequence
        xid = await _outbox.save_relay_state(self.conn, cursor.position, holes, self.saved_sequence)
        self.cursor = cursor.bounded(xid)
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
