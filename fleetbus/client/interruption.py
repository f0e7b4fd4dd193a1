"""Ending a block of code from outside it, for a reason that it then raises."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class Interruption:
    """A block that another task can end, as a deadline ends ``asyncio.timeout``.

    Its task is cancelled at the next await, and on the way out of the block the cancellation
    becomes the reason. A cancellation by anybody else stays one.
    """

    def __init__(self) -> None:
        self.reason: Exception | None = None
        self.entered = False
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0

    @property
    def active(self) -> bool:
        """Whether the block is being executed."""
        return self._task is not None

    def interrupt(self, reason: Exception) -> None:
        """End the block, from another task; it has one reason, the first."""
        if self._task is not None and self.reason is None:
            self.reason = reason
            self._task.cancel()

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        assert self._task is not None
        self._cancelling = self._task.cancelling()
        self.entered = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        task, self._task = self._task, None
        if self.reason is None or task is None:
            return
        if task.uncancel() <= self._cancelling and isinstance(error, asyncio.CancelledError):
            raise self.reason from self.reason.__cause__
