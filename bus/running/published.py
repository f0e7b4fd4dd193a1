"""How far the stream has the outbox, as one process knows it, and who waits for it to go on.

The active relay announces it on the bus, where anybody may say anything: so an announcement is a
hint to look into the database now, and only what is found there is believed. While anyone waits,
one query a second makes up for announcements that did not arrive.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass
from typing import Any, Final

import pydantic_core

from bus.kit.aio import end
from bus.kit.logs import limited
from bus.storage.database import Database
from bus.storage.own import outbox as _outbox

log = logging.getLogger("fleetbus.bus")

POLL_INTERVAL: Final = 1.0
"""Seconds between two looks into the database, for all who wait together."""

BELIEVED: Final = 1.0
"""Seconds for which what a look found answers further callers."""

APART: Final = 0.01
"""Seconds until the next look after one that helped nobody: false hints cost little."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The position that the stream has come to, and the ranges below it that it has not."""

    cursor: int
    holes: list[tuple[int, int]]

    def reached(self, position: int) -> bool:
        """Whether the stream has this position."""
        return position <= self.cursor and not any(
            first <= position <= last for first, last in self.holes
        )


class Published:
    """What was announced, what is known, and the callers that wait."""

    def __init__(self, database: Database, interval: float = POLL_INTERVAL) -> None:
        self._database = database
        self._interval = interval
        self._known = self._told = Progress(0, [])
        self._looked_at = self._fruitless_at = float("-inf")
        self._waiting: dict[asyncio.Future[None], int] = {}
        self._poller: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._again = False

    async def wait(self, position: int, seconds: float) -> bool:
        """Whether the stream has this position, at the latest after so many seconds."""
        if self._is_known(position):
            return True
        arrived = asyncio.get_running_loop().create_future()
        self._waiting[arrived] = position
        if self._told.reached(position):
            self._look_soon()
        if self._poller is None:
            self._poller = asyncio.create_task(self._poll())
        try:
            async with asyncio.timeout(seconds):
                await arrived
        except TimeoutError:
            return self._is_known(position)
        finally:
            del self._waiting[arrived]
        return True

    def heard(self, announcement: bytes) -> None:
        """Look, if what somebody announces would help anyone who waits."""
        try:
            self._told = _progress(pydantic_core.from_json(announcement))
        except (ValueError, KeyError, TypeError, OverflowError):
            kind, said = "announcement", "an announcement of the relay cannot be read"
            limited(log, logging.WARNING, kind, said)
            return
        if any(self._told.reached(position) for position in self._waiting.values()):
            self._look_soon()

    async def close(self) -> None:
        """Let go of those who look."""
        await end(*filter(None, (self._poller, self._looking)))

    def _is_known(self, position: int) -> bool:
        fresh = time.monotonic() - self._looked_at <= BELIEVED
        return fresh and self._known.reached(position)

    async def _poll(self) -> None:
        """Look into the database for as long as anyone waits."""
        try:
            if self._looked_at > float("-inf"):
                # The announcement is likely to be on its way.
                await asyncio.sleep(self._interval)
            while self._waiting:
                self._look_soon()
                await asyncio.sleep(self._interval)
        finally:
            self._poller = None

    def _look_soon(self) -> None:
        """One at a time; who wants one meanwhile gets another one after it."""
        self._again = True
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())

    async def _look(self) -> None:
        try:
            while self._again and self._waiting:
                await asyncio.sleep(max(0.0, self._fruitless_at + APART - time.monotonic()))
                self._again = False
                with contextlib.suppress(Exception):  # the poller tries again
                    await self._find_out()
        finally:
            self._looking = None

    async def _find_out(self) -> None:
        async with self._database.connection(read_only=True) as db:
            self._known = Progress(*await _outbox.relay_progress(db))
        self._looked_at = time.monotonic()
        reached = [
            arrived
            for arrived, position in self._waiting.items()
            if not arrived.done() and self._known.reached(position)
        ]
        for arrived in reached:
            arrived.set_result(None)
        if not reached:
            self._fruitless_at = time.monotonic()


def _progress(told: Any) -> Progress:
    holes = [(int(first), int(last)) for first, last in told["holes"]]
    return Progress(int(told["cursor"]), holes)
