"""Slow work of the processor, such as hashing passwords: in threads of its own, so many at once.

What waits holds no connection. Beyond a few that wait for each thread more are shed: whoever waits
would soon wait for longer than a caller listens.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from bus.contract.errors import Overloaded
from bus.handling.preparing import Slow

T = TypeVar("T")

WAITING_PER_THREAD = 16
"""Calls that may wait for each thread; at 50 ms of work each that is less than a second."""

RETRY_AFTER_MS = 1000
"""When a call that was shed is worth another attempt."""

NICENESS = 5
"""How much the threads stand back behind those that answer, where there are too few processors."""


class Hashing:
    """Does slow work in ``threads`` threads; nothing else of the process waits for it."""

    def __init__(self, threads: int) -> None:
        self._most = threads * (1 + WAITING_PER_THREAD)
        self._turn = asyncio.Semaphore(threads)
        self._threads = ThreadPoolExecutor(threads, "hashing", initializer=_stand_back)
        self.admitted = 0
        """Calls that work, wait, or read what they need for it."""
        self.working = 0
        """Threads that work, also for callers who have been answered meanwhile."""

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place among those that may work or wait inside the block, or ``Overloaded``."""
        if self.admitted >= self._most:
            raise Overloaded(
                in_flight=self.admitted, budget="hashing", retry_after_ms=RETRY_AFTER_MS
            )
        self.admitted += 1
        try:
            yield
        finally:
            self.admitted -= 1

    async def do(self, work: Slow[T]) -> T:
        """Do it in a thread once it is its turn; a thread that has begun is not interrupted.

        Whoever is cancelled leaves the queue, or leaves the thread to finish for nobody.
        """
        await self._turn.acquire()
        self.working += 1
        try:
            done = asyncio.get_running_loop().run_in_executor(self._threads, work)
        except BaseException:
            self._ended()
            raise
        done.add_done_callback(lambda _: self._ended())
        return await asyncio.shield(done)

    def _ended(self) -> None:
        self.working -= 1
        self._turn.release()


def _stand_back() -> None:
    """On Linux a thread has a priority of its own; elsewhere it would be that of the process."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
