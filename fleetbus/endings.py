"""Ending tasks for certain."""

from __future__ import annotations

import asyncio
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
