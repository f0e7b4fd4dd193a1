"""How far the stream has the outbox, as one process knows it, and who waits for it to go on.

The active relay announces it on the bus. While anyone waits, one query a second makes up for
announcements that did not arrive.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import pydantic_core

from fleetbus.database import Database
from fleetbus.endings import end
from persistence import _outbox

POLL_INTERVAL: Final = 1.0
"""Seconds between two looks into the database, for all who wait together."""


class Published:
    """What was announced, and the callers that wait."""

    def __init__(self, database: Database, interval: float = POLL_INTERVAL) -> None:
        self._database = database
        self._interval = interval
        self._cursor: int | None = None
        self._holes: list[tuple[int, int]] = []
        self._waiting: dict[asyncio.Future[None], int] = {}
        self._poller: asyncio.Task[None] | None = None

    async def wait(self, position: int, seconds: float) -> bool:
        """Whether the stream has this position, at the latest after so many seconds."""
        if self._reached(position):
            return True
        arrived = asyncio.get_running_loop().create_future()
        self._waiting[arrived] = position
        if self._poller is None:
            self._poller = asyncio.create_task(self._poll())
        try:
            async with asyncio.timeout(seconds):
                await arrived
        except TimeoutError:
            return self._reached(position)
        finally:
            del self._waiting[arrived]
        return True

    def heard(self, announcement: bytes) -> None:
        """Take note of what the relay announced."""
        told = pydantic_core.from_json(announcement)
        self._note(told["cursor"], [(first, last) for first, last in told["holes"]])

    async def close(self) -> None:
        """Let go of the poller."""
        if self._poller is not None:
            await end(self._poller)

    async def _poll(self) -> None:
        """Look into the database for as long as anyone waits."""
        try:
            if self._cursor is not None:
                # The announcement is likely to be on its way.
                await asyncio.sleep(self._interval)
            while self._waiting:
                with contextlib.suppress(Exception):
                    await self._look()
                await asyncio.sleep(self._interval)
        finally:
            self._poller = None

    async def _look(self) -> None:
        async with self._database.connection(read_only=True) as db:
            cursor, holes = await _outbox.relay_progress(db)
        if self._cursor is None or cursor >= self._cursor:
            self._note(cursor, holes)

    def _note(self, cursor: int, holes: list[tuple[int, int]]) -> None:
        self._cursor, self._holes = cursor, holes
        for arrived, position in self._waiting.items():
            if not arrived.done() and self._reached(position):
                arrived.set_result(None)

    def _reached(self, position: int) -> bool:
        if self._cursor is None or position > self._cursor:
            return False
        return not any(first <= position <= last for first, last in self._holes)
