"""Periodic work inside the handler processes: each job under an advisory lock, in bounded steps.

A step is a transaction like any other: its events go through the outbox, its reactions run. Time
comes from the database, so the clocks of the handler machines do not matter.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from fleetbus.bus.executor import CALLER
from fleetbus.bus.registry import Registry
from fleetbus.bus.transaction import Transaction, begin
from fleetbus.bus.work import react
from fleetbus.database import Database, is_outage
from persistence import _commit, _sweeps

log = logging.getLogger("fleetbus.sweeper")

Step = Callable[[Transaction], Awaitable[int]]

STEP_TIMEOUT = 10.0


@dataclass(frozen=True)
class Job:
    """A piece of periodic work: one bounded step that returns how much it handled."""

    name: str
    step: Step
    interval: float
    """Seconds between two rounds."""
    limit: int
    """A step that handled this much is followed by another at once."""


class Sweeper:
    """Runs the jobs of a process; of several processes one at a time works on each job."""

    def __init__(
        self,
        registry: Registry,
        database: Database,
        jobs: Sequence[Job],
        *,
        committed: Callable[[], None] = lambda: None,
    ) -> None:
        self._registry = registry
        self._database = database
        self._jobs = jobs
        self._committed = committed
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Work until stopped; an outage of the database only pauses it."""
        async with asyncio.TaskGroup() as group:
            for job in self._jobs:
                group.create_task(self._repeat(job), name=f"sweep-{job.name}")

    def stop(self) -> None:
        """End after the steps in hand."""
        self._stopped.set()

    async def _repeat(self, job: Job) -> None:
        while not self._stopped.is_set():
            handled = await self._attempt(job)
            if handled < job.limit:
                # Processes that started together should not meet at the lock for ever.
                await self._pause(job.interval * random.uniform(0.9, 1.1))  # noqa: S311  jitter

    async def _attempt(self, job: Job) -> int:
        """One step; its error is logged and noted, and the next round tries again."""
        started = time.monotonic()
        try:
            return await self._step(job, started)
        except Exception as error:
            if not is_outage(error) and self._database.available:
                log.exception("the job %s failed", job.name)
            await self._pause(min(job.interval, 1.0))
            return 0

    async def _step(self, job: Job, started: float) -> int:
        async with begin(self._database, left=lambda: STEP_TIMEOUT) as tx:
            if not await _sweeps.try_lock(tx.db, job.name):
                return 0
            tx.now = (await _commit.open_work(tx.db, CALLER, [])).now
            handled = await job.step(tx)
            await react(self._registry, tx)
            duration = int((time.monotonic() - started) * 1000)
            await _sweeps.record(tx.db, job.name, duration_ms=duration, handled=handled, error=None)
            position = await tx.append(CALLER, tx.outbox_rows(), [])
            await tx.commit()
        if position is not None:
            self._committed()
        return handled

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopped.wait()
        except TimeoutError:
            return
