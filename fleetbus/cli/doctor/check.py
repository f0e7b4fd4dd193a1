"""One thing that ``fleetbus doctor`` looks at, and what two of them share."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

LARGEST_ROUND_TRIP = 0.25
"""Seconds; a command takes four round trips to the database."""

RUNS = 5


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    """What to do if it is not ok."""


async def fastest(action: Callable[[], Awaitable[Any]]) -> float:
    """The shortest of a few runs, in seconds: what it takes when nothing is in the way."""
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        await action()
        times.append(time.perf_counter() - started)
    return min(times)
