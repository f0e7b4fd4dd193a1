"""The active relay: from the moment it holds the lock until something fails."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.kit.aio import end
from bus.storage.own import outbox as _outbox
from bus.storage.own.outbox import OutboxRow, RelayState
from fleetbus.server.relay.holes import Cursor, Hole, Step, View, step
from fleetbus.server.relay.metrics import RelayMetrics
from fleetbus.server.relay.packing import bounded, packed
from fleetbus.server.relay.publisher import ConsideredDuplicate, Publisher
from fleetbus.server.relay.tail import Tail

MANY_HOLES: Final = 100
"""Holes from which on it is worth asking who may own one."""


@dataclass(frozen=True, slots=True)
class Paging:
    """How much is read at once."""

    page: int
    lookahead: int


def _nothing() -> None: ...


@dataclass(slots=True)
class Leader:
    """Moves the outbox into the stream, a page at a time.

    After any failure it is thrown away, and the next one starts from the saved state and from
    what the stream holds: so no failure needs a repair of its own.
    """

    conn: AsyncConnection
    tail: Tail
    paging: Paging
    metrics: RelayMetrics
    cursor: Cursor
    saved_sequence: int
    ahead: View[OutboxRow] | None = None
    """What lies beyond the cursor, if it has been read already."""
    progressed: Callable[[], None] = _nothing
    """Called whenever some of a page is published: a large one may take its time."""

    @property
    def sequence(self) -> int:
        """Where the stream ends, as far as it is known."""
        return self.tail.sequence

    @property
    def publisher(self) -> Publisher:
        """How transactions get into the stream."""
        return self.tail.publisher

    async def advance(self) -> bool:
        """Publish the next page and save how far it came; true if there may be more to read.

        While a full page is on its way the next one is read. Holes that the first one showed are
        bounded only after that, by a later xid than the bound has to be.
        """
        view, was_read_ahead = self.ahead or await self._look(self.cursor), self.ahead is not None
        decided = step(self.cursor, view)
        sent = await self._publish_and_look(decided, full=view.examined is not None)
        self.metrics.published += sent
        if decided.cursor != self.cursor:
            await self._save(decided.cursor)
        return was_read_ahead or self.ahead is not None

    async def append(self, transactions: list[list[OutboxRow]]) -> None:
        """Publish again what the stream lost; counts what the stream took.

        It takes no event whose id the server remembers: whoever asked sees that it has not grown.
        """
        with suppress(ConsideredDuplicate):
            for together in packed(transactions):
                self.metrics.repaired += await self.tail.put(
                    together, self._is_pending, forget=False
                )
        await self._save(self.cursor)

    async def look_again(self) -> None:
        """Judge what others have put into the stream behind what is known of it."""
        await self.tail.look_again(self._is_pending)

    async def clean(self) -> bool:
        """Remove what is not ours; true if there is more of it."""
        if not self.tail.foreign:
            return False
        await self.tail.clean()
        if not self.tail.foreign and self.saved_sequence < self.tail.own:
            await self._save(self.cursor)
        return bool(self.tail.foreign)

    async def _publish_and_look(self, decided: Step[OutboxRow], *, full: bool) -> int:
        """Publish, and read the next page meanwhile if this one is full; returns how many."""
        self.ahead = None
        if not full:
            return await self._publish(decided.transactions)
        looking = asyncio.create_task(self._look(decided.cursor))
        try:
            sent = await self._publish(decided.transactions)
            self.ahead = await looking
        finally:
            await end(looking)
        return sent

    async def _look(self, cursor: Cursor) -> View[OutboxRow]:
        limit = self.paging.page
        async with self.tail.database:
            floor = await self._floor(cursor)
            rows, xmin = await self._read(cursor)
        examined = rows[limit - 1].position if len(rows) >= limit else None
        rows, examined = bounded(rows, examined)
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
        sent = 0
        try:
            for together in packed(transactions):
                sent += await self.tail.put(together, self._is_pending, forget=True)
                self.progressed()
        except Exception:
            self.metrics.publish_errors += 1
            raise
        return sent

    def _is_pending(self, position: int) -> bool:
        holes = any(hole.first <= position <= hole.last for hole in self.cursor.holes)
        return position > self.cursor.position or holes

    async def _save(self, cursor: Cursor) -> None:
        holes = [(hole.first, hole.last) for hole in cursor.holes]
        tail = self.tail
        # As long as there are events in the stream that the cursor has not come to, or messages
        # that are still to be removed, whoever takes over must look at them there once more.
        if cursor.position >= tail.stored.highest and not tail.foreign:
            self.saved_sequence = tail.own
        async with tail.database:
            xid = await _outbox.save_relay_state(
                self.conn, cursor.position, holes, self.saved_sequence
            )
        self.cursor = cursor.bounded(xid)
        tail.saved()
        self.metrics.last_position = cursor.position
        self.metrics.holes = len(holes)

    async def measure(self) -> None:
        """Note the backlog."""
        async with self.tail.database:
            found = await _outbox.backlog(self.conn)
        self.metrics.backlog, self.metrics.backlog_age = found.waiting, found.oldest


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
