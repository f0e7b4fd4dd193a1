"""What the stream lost comes back: the active relay compares it with the outbox and appends."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from nats.js import JetStreamContext
from nats.js.api import StreamInfo
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage.own import outbox as _outbox
from bus.storage.own import reconciliation as _reconciliation
from bus.storage.own.outbox import OutboxRow, RelayState
from fleetbus.server.relay.comparison import (
    Comparison,
    TimelineConflict,
    expected,
    has_limits,
    looks_whole,
    unchanged,
)
from fleetbus.server.relay.holes import by_transaction
from fleetbus.server.relay.leader import Leader
from fleetbus.server.relay.positions import Ranges, within
from fleetbus.server.relay.stream import StreamChanged, forgetting_duplicates

_logger = logging.getLogger("fleetbus.relay")

_TRIES: Final = 3
"""How often what is missing is published again before new events have their turn."""
_FORGETS_WITHIN: Final = 5.0
"""Seconds in which a server that is busy has forgotten the ids of a shortened window."""
_PAUSE: Final = 0.2


@dataclass(slots=True)
class Reconciler:
    """Compares and repairs a page at a time, between the pages that the leader publishes.

    It works on the leader's own connection and behind the leader's fence: so it appends in one
    order with it, and stops being able to when the leader does.
    """

    leader: Leader
    js: JetStreamContext
    info: StreamInfo
    interval: float
    delay: float
    """Seconds until the first comparison: who takes over has events to publish."""
    _due: float = field(init=False)
    _whole: bool = False
    _left: int = 0
    """Events that the last comparison found missing and did not bring back."""
    _returned: int = 0
    """Events that came back when the server had forgotten them, and were told of."""
    _running: AsyncGenerator[None] | None = None

    def __post_init__(self) -> None:
        self._due = time.monotonic() + self.delay

    def ask(self) -> None:
        """Compare everything, soon."""
        self._due, self._whole = time.monotonic(), True

    async def step(self) -> bool:
        """Go on with a comparison, or begin one that is due; true if there is more to do."""
        more = await self.leader.clean()
        if self.leader.tail.returned > self._returned:
            self._returned = self.leader.tail.returned
            self.ask()
        if self._running is None:
            if time.monotonic() < self._due:
                return more
            self._running = self._compare()
        try:
            await anext(self._running)
        except StopAsyncIteration:
            self._running = None
        return more or self._running is not None or time.monotonic() >= self._due

    async def finish(self) -> None:
        """Compare and repair to the end, before anything else is published.

        Again if the server took some of them for duplicates, but not for ever.
        """
        for _ in range(_TRIES):
            async with aclosing(self._compare()) as steps:
                async for _ in steps:
                    pass
            if not self._left or _cancelled():
                return

    async def close(self) -> None:
        """Let go of a comparison that is under way."""
        if self._running is not None:
            await self._running.aclose()

    async def watch(self) -> None:
        """Judge what others have put into the stream; raise `StreamChanged` if they took out."""
        found, tail = await self.js.stream_info(self.info.config.name or ""), self.leader.tail
        if found.state.last_seq != tail.sequence or found.created != self.info.created:
            await self.leader.look_again()
        elif not tail.foreign:
            if _removed(self.info, found, tail.gone):
                raise StreamChanged("events were removed from the stream")
            self.info, tail.gone = found, 0

    async def _compare(self) -> AsyncGenerator[None]:
        whole, self._whole = self._whole, False
        self._due = time.monotonic() + self.interval
        conn, js = self.leader.conn, self.js
        info = await js.stream_info(self.info.config.name or "")
        state = await _outbox.load_relay_state(conn)
        mark = None if whole else await _reconciliation.load_mark(conn)
        if mark is not None and not await unchanged(js, info, mark):
            mark = None
        comparison, ranges = Comparison(conn, js, info), expected(state, mark)
        async for _ in comparison.read_stream(mark.sequence if mark else 0):
            yield
        self.leader.tail.doubt(comparison.foreign)
        async for _ in comparison.look_for(ranges):
            yield
        async with aclosing(self._conclude(comparison, ranges, state)) as steps:
            async for _ in steps:
                yield

    async def _conclude(
        self, comparison: Comparison, ranges: Ranges, state: RelayState
    ) -> AsyncGenerator[None]:
        conn = self.leader.conn
        self._left = comparison.missing
        if not comparison.missing:
            mark = await comparison.mark(state)
            back, self.leader.tail.returned, self._returned = self.leader.tail.returned, 0, 0
            await _reconciliation.save_verdict(
                conn,
                "repaired" if back else "ok",
                checked=comparison.checked,
                missing=back,
                repaired=back,
                mark=mark,
            )
            return
        await self._announce(comparison)
        before = self.leader.metrics.repaired
        async with (
            forgetting_duplicates(self.leader.tail.client, comparison.info),
            aclosing(self._repair(comparison, ranges)) as steps,
        ):
            async for _ in steps:
                yield
        await self._report(comparison, self.leader.metrics.repaired - before)

    async def _announce(self, comparison: Comparison) -> None:
        """Note what is missing: after an interruption the stream need not look as if it was."""
        name = comparison.info.config.name
        _logger.error("stream %s has lost %d events: restoring them", name, comparison.missing)
        await _reconciliation.save_verdict(
            self.leader.conn,
            "incomplete",
            checked=comparison.checked,
            missing=comparison.missing,
            detail=_reconciliation.UNDER_WAY,
        )

    async def _repair(self, comparison: Comparison, ranges: Ranges) -> AsyncGenerator[None]:
        """Append what the stream was not seen to hold, by transaction, in the outbox's order."""
        leader, limit = self.leader, self.leader.paging.page
        first, last = comparison.missing_first, comparison.missing_last
        while wanted := within(ranges, first, last):
            page = await _outbox.read_outbox(leader.conn, wanted, limit, leader.paging.lookahead)
            lost = [row for row in page.rows if row.position not in comparison.seen]
            await self._append(by_transaction(lost))
            for row in lost:
                comparison.seen.add(row.position)
            if len(page.rows) < limit:
                return
            first = page.rows[limit - 1].position + 1
            yield

    async def _append(self, lost: list[list[OutboxRow]]) -> None:
        """Append, again while the server takes each of them for a duplicate.

        If it took some of them, appending again could store those twice: the next comparison
        tells which.
        """
        before, give_up = self.leader.sequence, time.monotonic() + _FORGETS_WITHIN
        await self.leader.append(lost)
        while lost and self.leader.sequence == before and not _cancelled():
            if time.monotonic() >= give_up:
                return
            await asyncio.sleep(_PAUSE)
            await self.leader.append(lost)

    async def _report(self, comparison: Comparison, repaired: int) -> None:
        """Say what came back. What the server took for a duplicate did not, and is tried again."""
        left = self._left = comparison.missing - repaired
        if left > 0:
            window = comparison.info.config.duplicate_window or 0.0
            self._due = min(self._due, time.monotonic() + window + 1)
        await _reconciliation.save_verdict(
            self.leader.conn,
            "incomplete" if left > 0 else "repaired",
            checked=comparison.checked,
            missing=comparison.missing,
            repaired=repaired,
        )
        _logger.warning("%d of %d lost events are back", repaired, comparison.missing)


async def has_lost(
    conn: AsyncConnection, js: JetStreamContext, info: StreamInfo, state: RelayState
) -> bool:
    """Whether the stream gives reason to believe that it is not what it was; cheap to say."""
    if info.state.last_seq < state.stream_sequence:
        _logger.error(
            "stream %s ends at sequence %d although %d was acknowledged: it has lost events",
            info.config.name,
            info.state.last_seq,
            state.stream_sequence,
        )
        return True
    found = await _reconciliation.last_verdict(conn)
    if found is not None and found.state == "incomplete":
        return True
    mark = await _reconciliation.load_mark(conn)
    if mark is None:
        return not looks_whole(info)
    return not await unchanged(js, info, mark)


def _cancelled() -> bool:
    """Also if a library below has swallowed it: the task remembers."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _removed(before: StreamInfo, now: StreamInfo, by_us: int) -> bool:
    """Whether anybody else took events out of the stream."""
    return not has_limits(now) and _gone(now) != _gone(before) + by_us


def _gone(info: StreamInfo) -> int:
    """How many of all messages that the stream ever took it does not hold any more."""
    return info.state.last_seq - info.state.messages


async def note_conflict(conn: AsyncConnection, conflict: TimelineConflict) -> None:
    """Record that nothing is published until a person decides."""
    await _reconciliation.save_verdict(conn, "timeline_conflict", detail=str(conflict))


async def recheck_conflict(conn: AsyncConnection, js: JetStreamContext, info: StreamInfo) -> None:
    """Raise the conflict that was found last if it is still there, wherever in the stream."""
    found = await _reconciliation.last_verdict(conn)
    if found is not None and found.state == "timeline_conflict":
        async for _ in Comparison(conn, js, info).read_stream(0):
            pass


def announcement(leader: Leader) -> bytes:
    """How far the stream has the outbox, as the processes are told: cursor and holes."""
    holes = [(hole.first, hole.last) for hole in leader.cursor.holes]
    return json.dumps({"cursor": leader.cursor.position, "holes": holes}).encode()
