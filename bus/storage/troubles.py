"""What the server refuses for reasons of its own: said when it begins, and when it is over."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from bus.kit.aio import end
from bus.storage.outages import READ_ONLY, is_lasting, sqlstate, trouble

log = logging.getLogger("fleetbus.database")

LOOK_INTERVAL = 0.1
"""Seconds between two looks whether a database that was read-only takes writes."""

QUIET = 5.0
"""Seconds without a failure of the server's own after which it counts as well again."""


class Troubles:
    """Notes failures that are the server's while it can be reached: a full disk, no writes.

    However many requests meet one, it is one line in the log. ``takes_writes`` asks the server by
    a new connection.
    """

    def __init__(self, takes_writes: Callable[[], Awaitable[bool]]) -> None:
        self.what: str | None = None
        """What is wrong at the moment, in words."""
        self.lasting: str | None = None
        """The same, if everybody meets it and not one statement alone."""
        self.read_only: str | None = None
        """The same, where no write can succeed."""
        self._takes_writes = takes_writes
        self._last = 0.0
        self._met = 0
        self._doubted = False
        self._watching: asyncio.Task[None] | None = None
        self._closed = False

    def note(self, error: BaseException) -> None:
        """A command or a job failed for this; whatever is not the server's is not noted."""
        words = trouble(error)
        if words is None or self._closed:
            return
        self._last = time.monotonic()
        self._met += 1
        if self.what is None:
            log.error("Postgres refuses work: %s: %s", words, _first_line(error))
        self.what = words
        if is_lasting(error):
            self.lasting = words
        self._doubted |= sqlstate(error) == READ_ONLY
        if self._watching is None:
            self._watching = asyncio.create_task(self._until_over())

    async def close(self) -> None:
        """End the watch."""
        self._closed = True
        if self._watching is not None:
            await end(self._watching)

    async def _until_over(self) -> None:
        while self._doubted or time.monotonic() < self._last + QUIET:
            if self._doubted and await self._takes_writes():
                self._doubted, self.read_only = False, None
                continue
            if self._doubted:
                # It is over when the server says so, however long ago somebody has tried.
                self.read_only, self._last = self.what, 0.0
            await asyncio.sleep(LOOK_INTERVAL)
        log.warning("Postgres works again; it had refused %d times", self._met)
        self.what = self.lasting = None
        self._met, self._watching = 0, None


def _first_line(error: BaseException) -> str:
    origin = getattr(error, "orig", None) or error
    return str(origin).split("\n", 1)[0]
