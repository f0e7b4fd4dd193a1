"""The end of the stream: where the active relay appends, and finds what others have put there."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final

from nats.aio.client import Client
from nats.js.api import StreamInfo
from nats.js.errors import APIError
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.kit.logs import limited, shown
from bus.storage.own import foreign_messages as _foreign
from bus.storage.own import outbox as _outbox
from bus.storage.own.outbox import OutboxRow
from bus.storage.own.short_forms import MARK
from fleetbus.server.relay.claims import claimed
from fleetbus.server.relay.events import Message, message
from fleetbus.server.relay.metrics import RelayMetrics
from fleetbus.server.relay.ownership import held_at, rows_of, tells
from fleetbus.server.relay.packing import Part
from fleetbus.server.relay.positions import PositionSet
from fleetbus.server.relay.publisher import WRONG_LAST_SEQUENCE, Publisher, TakenForDuplicate
from fleetbus.server.relay.reading import Found, found_between, remove
from fleetbus.server.relay.stream import StreamChanged, forgetting_duplicates

_logger = logging.getLogger("fleetbus.relay")

Owed = Callable[[int], bool]
"""Whether the event at a position is still to be published."""

_REMOVED_AT_ONCE: Final = 500
_FORGED_IDS: Final = 10_000
_FORGETS_WITHIN: Final = 5.0
"""Seconds in which a server that is busy has forgotten the ids of a shortened window."""
_PAUSE: Final = 0.2
_ASKED_AT_ONCE: Final = 16


@dataclass(slots=True)
class Tail:
    """Appends behind a known end, and judges what came between before it goes on.

    What it finds there and is not ours it removes, in `clean`.
    """

    conn: AsyncConnection
    client: Client
    publisher: Publisher
    info: StreamInfo
    source: str
    metrics: RelayMetrics
    own: int
    """The sequence of the last event of ours."""
    stored: PositionSet
    """Events that the stream was seen to hold though the cursor has not come to them."""
    foreign: list[Found] = field(default_factory=list)
    """What is not ours and not removed yet."""
    gone: int = 0
    """Messages behind a known end that are not there any more, since somebody asked last."""
    returned: int = 0
    """Events that the server took for duplicates although the stream had lost them."""
    database: asyncio.Lock = field(default_factory=asyncio.Lock)
    """The next page may be read while this one is published, and the connection is one."""
    sequence: int = field(init=False)
    """Where the stream ends, as far as all of it is known."""
    _told: set[int] = field(default_factory=set)
    _forged: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.sequence = self.info.state.last_seq
        self._remember(self.foreign)

    async def put(self, together: Sequence[Part], owed: Owed, *, forget: bool) -> int:
        """Append what is not stored yet; returns how many events that was.

        A message that came between is judged, and then it is tried again, with less at a time.
        An event whose id the server remembers, and which the stream does not hold, it is made to
        forget. Without `forget` that raises `TakenForDuplicate`.
        """
        tries, count = 0, sum(len(part.rows) for part in self._left(together))
        give_up: float | None = None
        async with AsyncExitStack() as forgetting:
            while left := self._left(together):
                some = left[: max(1, len(left) >> tries)]
                try:
                    await self._append(some)
                    tries = max(0, tries - 1)
                except APIError as refusal:
                    if refusal.err_code != WRONG_LAST_SEQUENCE:
                        raise
                    tries += 1
                    await self.look_again(owed, some)
                except TakenForDuplicate:
                    await self.look_again(owed, some)
                    if not forget or time.monotonic() > (give_up or time.monotonic()):
                        raise
                    if await self._find(some):
                        continue
                    if give_up is None:
                        self._expect_back(some)
                        info = await self.client.jetstream().stream_info(self.name)
                        await forgetting.enter_async_context(
                            forgetting_duplicates(self.client, info)
                        )
                        give_up = time.monotonic() + _FORGETS_WITHIN
                    await asyncio.sleep(_PAUSE)
        return count

    async def look_again(self, owed: Owed, in_hand: Sequence[Part] = ()) -> None:
        """Judge what the stream holds behind the known end. Raises `StreamChanged`."""
        info = await self.client.jetstream().stream_info(self.name)
        last = info.state.last_seq
        if info.created != self.info.created or last < self.sequence:
            raise StreamChanged(f"the stream ends at {last}, and ended at {self.sequence}")
        also = {row.position for part in in_hand for row in part.rows}
        read = 0
        async for page in found_between(self.client, self.name, self.sequence + 1, last):
            async with self.database:
                rows = await rows_of(self.conn, page)
            for found in page:
                self._judge(found, rows, lambda position: owed(position) or position in also)
            read += len(page)
        self.gone += last - self.sequence - read
        self.sequence = last

    def doubt(self, foreign: Sequence[Found]) -> None:
        """Have messages removed that a comparison has found not to be ours."""
        known = {found.sequence for found in self.foreign}
        # What lies beyond the known end is judged there.
        self.foreign += [
            found
            for found in foreign
            if found.sequence <= self.sequence and found.sequence not in known
        ]
        self._remember(foreign)

    async def clean(self) -> None:
        """Remove some of what is not ours, count it and say so."""
        some, self.foreign = self.foreign[:_REMOVED_AT_ONCE], self.foreign[_REMOVED_AT_ONCE:]
        if not some:
            return
        try:
            removed = await remove(self.client, self.name, [found.sequence for found in some])
        except APIError as refusal:
            what = "foreign messages cannot be removed from stream %s: %s"
            limited(_logger, logging.ERROR, "kept foreign messages", what, self.name, refusal)
            return
        for found in some:
            what = "removed a foreign message from stream %s: %s at sequence %d"
            where = shown(found.subject)
            limited(
                _logger, logging.WARNING, "foreign message", what, self.name, where, found.sequence
            )
        self.metrics.foreign += removed
        last = some[-1]
        self.gone += removed
        async with self.database:
            await _foreign.note_removed(
                self.conn,
                removed=removed,
                gone=removed,
                subject=last.subject[:200],
                sequence=last.sequence,
            )

    def saved(self) -> None:
        """Take note that the cursor has come to all that was published."""
        self._told.clear()

    @property
    def name(self) -> str:
        """The stream's."""
        return self.info.config.name or ""

    @property
    def _largest(self) -> int:
        """What a message may be, headers and body together, by what the servers say now."""
        of_stream = self.info.config.max_msg_size or 0
        payload = self.client.max_payload
        return min(payload, of_stream) if of_stream > 0 else payload

    def _left(self, together: Sequence[Part]) -> list[Part]:
        """What of it is neither stored nor told."""
        left = (
            Part([row for row in part.rows if not self._is_there(row.position)], part.part)
            for part in together
        )
        return [part for part in left if part.rows]

    def _is_there(self, position: int) -> bool:
        return position in self._told or position in self.stored

    async def _append(self, some: Sequence[Part]) -> None:
        told = await self._messages(some)
        self.sequence = await self.publisher.publish(told, self.sequence)
        self.own = self.sequence
        self._told.update(row.position for part in some for row in part.rows)
        self.metrics.shortened += sum(MARK in m.headers for part in told for m in part)

    async def _messages(self, some: Sequence[Part]) -> list[list[Message]]:
        without = [row.position for part in some for row in part.rows if row.data is None]
        bodies: dict[int, str] = {}
        if without:
            async with self.database:
                bodies = await _outbox.bodies(self.conn, without)
        limit = self._largest

        def told(row: OutboxRow, part: str) -> Message:
            whole = row if row.data is not None else row._replace(data=bodies[row.position])
            return message(whole, self.source, limit=limit, part=part)

        return [[told(row, part.part) for row in part.rows] for part in some]

    def _judge(self, found: Found, rows: dict[int, OutboxRow], owed: Owed) -> None:
        claim = claimed(found.headers)
        row = rows.get(claim.position) if claim else None
        missing = row is not None and owed(row.position) and not self._is_there(row.position)
        if row is not None and missing and tells(found, row):
            self.stored.add(row.position)
            self.own = found.sequence
            return
        self.foreign.append(Found(found.sequence, found.subject, found.headers, None))
        self._remember([found])

    def _remember(self, foreign: Sequence[Found]) -> None:
        """The server takes our events for duplicates of what had their ids."""
        for found in foreign:
            event_id = (found.headers or {}).get("Nats-Msg-Id", "")
            if event_id and len(self._forged) < _FORGED_IDS:
                self._forged.add(event_id)

    async def _find(self, some: Sequence[Part]) -> bool:
        """Whether the stream holds any of these events after all."""
        rows = [row for part in some for row in part.rows]
        before = self.stored.count
        for start in range(0, len(rows), _ASKED_AT_ONCE):
            asked = rows[start : start + _ASKED_AT_ONCE]
            at = await asyncio.gather(*(held_at(self.client, self.name, row) for row in asked))
            for row, sequence in zip(asked, at, strict=True):
                if sequence is not None:
                    self.stored.add(row.position)
        return self.stored.count > before

    def _expect_back(self, some: Sequence[Part]) -> None:
        """What nobody has forged an id of was in the stream once, and is lost."""
        ids = {row.event_id for part in some for row in part.rows}
        if not ids & self._forged:
            self.returned += len(ids)
