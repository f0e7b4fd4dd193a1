"""Slots: how many may do something at once, and who is next."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator

RESERVE = 1
"""Slots beyond those for all, which only vital work may take."""


class Slots:
    """So many slots for all, and a reserve for vital work; each kind has its own queue.

    Vital work waits for its like only, however many others wait. A free slot that others may have
    is theirs first, so vital work cannot starve them either.
    """

    def __init__(self, size: int, *, reserve: int = RESERVE) -> None:
        self.size = size + reserve
        self._free = self.size
        self._free_for_all = size
        self._all: deque[asyncio.Future[None]] = deque()
        self._vital: deque[asyncio.Future[None]] = deque()

    @property
    def in_use(self) -> int:
        """How many are taken."""
        return self.size - self._free

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return len(self._all) + len(self._vital)

    @contextlib.asynccontextmanager
    async def slot(self, *, vital: bool = False) -> AsyncIterator[None]:
        """A slot for as long as the block lasts."""
        if self._has_free(vital=vital):
            self._take(vital=vital)
        else:
            await self._wait(vital=vital)
        try:
            yield
        finally:
            self._release(vital=vital)

    async def _wait(self, *, vital: bool) -> None:
        queue = self._vital if vital else self._all
        given = asyncio.get_running_loop().create_future()
        queue.append(given)
        try:
            await given
        except asyncio.CancelledError:
            if not given.cancelled():
                self._release(vital=vital)
            elif given in queue:
                queue.remove(given)
            raise

    def _has_free(self, *, vital: bool) -> bool:
        """While somebody of this kind waits there is none."""
        return self._free > 0 and (vital or self._free_for_all > 0)

    def _take(self, *, vital: bool) -> None:
        self._free -= 1
        self._free_for_all -= not vital

    def _release(self, *, vital: bool) -> None:
        self._free += 1
        self._free_for_all += not vital
        for queue, of_vital in ((self._all, False), (self._vital, True)):
            while queue and self._has_free(vital=of_vital):
                given = queue.popleft()
                if not given.cancelled():
                    self._take(vital=of_vital)
                    given.set_result(None)
