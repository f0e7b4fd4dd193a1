"""Ending tasks for certain, and letting what ends something end itself."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

AGAIN = 0.2
"""Seconds after which a task that still runs is cancelled once more."""


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until they have ended.

    One cancellation is not enough: before Python 3.12 ``asyncio.wait_for`` swallows it when what
    it waits for is done in the same moment.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=AGAIN)


async def unhindered(work: Coroutine[Any, Any, None]) -> None:
    """Do this to its end, whatever cancels the caller meanwhile; it is cancelled afterwards."""
    running = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        running.exception()
        raise cancelled
    running.result()
