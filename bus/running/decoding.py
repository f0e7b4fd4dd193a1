"""Large requests are decoded one after the other, so that the socket is read meanwhile.

The event loop that decodes is the one that reads. A server of NATS cuts off a client that reads
too slowly, and with it everything that is in work; so after each large body there is time to read,
as much as the body has taken.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from bus.running.calls import Call

LARGE = 32 * 1024
"""Bytes from which on a body waits for its turn."""


class Decoding:
    """The queue of large bodies that are still to be decoded."""

    def __init__(self, decode: Callable[[Call, bytes], None]) -> None:
        self._decode = decode
        self._waiting: deque[tuple[Call, bytes]] = deque()
        self._scheduled = False
        self._rested = 0.0

    def add(self, call: Call, body: bytes) -> None:
        """Decode this body when those before it are; at once if there has been none lately."""
        self._waiting.append((call, body))
        self._schedule()

    def _schedule(self) -> None:
        if self._waiting and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_at(self._rested, self._next)

    def _next(self) -> None:
        self._scheduled = False
        loop = asyncio.get_running_loop()
        started = loop.time()
        call, body = self._waiting.popleft()
        if not call.answered:
            self._decode(call, body)
        ended = loop.time()
        self._rested = ended + (ended - started)
        self._schedule()
