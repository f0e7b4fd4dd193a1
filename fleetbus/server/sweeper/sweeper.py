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
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.errors import Unavailable
from bus.handling.shapes import Periodic
from bus.running.calls import OUTSIDE
from bus.running.registry import Registry
from bus.running.transaction import CommitUnknown, Transaction, begin
from bus.running.work import react, run_job
from bus.storage import partitions
from bus.storage import sealed as _sealed
from bus.storage.database import Database
from bus.storage.outages import LOCK_NOT_AVAILABLE, QUERY_CANCELED, sqlstate, trouble
from bus.storage.own import commit as _commit
from bus.storage.own import outbox_partitions as _outbox_partitions
from bus.storage.own import sweeps as _sweeps
from bus.storage.partitions import PARTITIONED, Partitioned
from bus.storage.sealed import KeyRing
from fleetbus.server.config import Settings

log = logging.getLogger("fleetbus.sweeper")

STEP_TIMEOUT = 10.0
"""Seconds that a statement of a step may take."""

VITAL_LOCK_TIMEOUT = 0.5
"""Seconds that what is vital waits for a lock, in which it keeps the connection of its like."""

REQUESTS_PER_STEP = 5_000
ROTATED_PER_STEP = 100

OUTBOX_INTERVAL = 60.0
"""Seconds between two looks at the partitions of the outbox."""

DAILY_INTERVAL = 600.0
"""Seconds between two looks at the partitions by day."""


@dataclass(frozen=True)
class Sweep:
    """A job as the sweeper runs it: one bounded step that returns how much it handled."""

    name: str
    step: Callable[[Transaction], Awaitable[int]]
    every: float
    limit: int
    vital: bool = False


@dataclass(frozen=True)
class Upkeep:
    """Work of which no transaction may stay open, such as dropping a partition.

    Its step gets a session of its own, in autocommit. It keeps no step waiting for its next one.
    """

    name: str
    step: Callable[[AsyncConnection], Awaitable[int]]
    every: float


class Sweeper:
    """Runs the jobs of a process; of several processes one at a time works on each job."""

    def __init__(
        self,
        registry: Registry,
        database: Database,
        sweeps: Sequence[Sweep | Upkeep],
        *,
        committed: Callable[[], None] = lambda: None,
    ) -> None:
        self._registry = registry
        self._database = database
        self._sweeps = sweeps
        self._committed = committed
        self._stopped = asyncio.Event()
        self._locked_out: set[str] = set()

    async def run(self) -> None:
        """Work until stopped; an outage of the database only pauses it."""
        async with asyncio.TaskGroup() as group:
            for sweep in self._sweeps:
                group.create_task(self._repeat(sweep), name=f"sweep-{sweep.name}")

    def stop(self) -> None:
        """End after the steps in hand."""
        self._stopped.set()

    async def _repeat(self, sweep: Sweep | Upkeep) -> None:
        while not self._stopped.is_set():
            handled = await self._attempt(sweep)
            if isinstance(sweep, Upkeep) or handled < sweep.limit:
                # Processes that started together should not meet at the lock for ever.
                await self._pause(sweep.every * random.uniform(0.9, 1.1))  # noqa: S311  jitter

    async def _attempt(self, sweep: Sweep | Upkeep) -> int:
        """One step; an error is logged and noted, and the next round tries again."""
        started = time.monotonic()
        try:
            return await self._step(sweep, started)
        except Exception as error:
            if self._is_the_databases(error, started):
                self._database.note(error)
                return 0
            if sqlstate(error) == LOCK_NOT_AVAILABLE:
                self._say_locked_out(sweep.name)
            else:
                log.exception("the job %s failed", sweep.name)
            await self._note_failure(sweep, started, error)
            return 0

    def _is_the_databases(self, error: Exception, started: float) -> bool:
        """Whether it was the database that failed, and not the job.

        What was cancelled for it took too long is the job's own.
        """
        if isinstance(error, (Unavailable, CommitUnknown)) or not self._database.available:
            return True
        state = sqlstate(error)
        if state == QUERY_CANCELED:
            return time.monotonic() - started < STEP_TIMEOUT
        return state != LOCK_NOT_AVAILABLE and trouble(error) is not None

    def _say_locked_out(self, name: str) -> None:
        """Say it once until the job gets through."""
        level = logging.DEBUG if name in self._locked_out else logging.WARNING
        self._locked_out.add(name)
        log.log(level, "the job %s met somebody else's lock; it tries again next round", name)

    async def _step(self, sweep: Sweep | Upkeep, started: float) -> int:
        vital = isinstance(sweep, Sweep) and sweep.vital
        async with self._begin(sweep) as tx:
            if not await _sweeps.try_lock(tx.db, sweep.name):
                return 0
            tx.now = (await _commit.open_work(tx.db, OUTSIDE, [])).now
            tx.strict = self._registry.strict
            handled = await self._run(sweep, tx)
            await react(self._registry, tx)
            # What is vital does not wait for the table of what has been done.
            if not vital:
                await self._record(tx, sweep, started, handled)
            position = (await tx.append(OUTSIDE, tx.outbox_rows(), [])).position
            await tx.commit()
        if position is not None:
            self._committed()
        self._locked_out.discard(sweep.name)
        if vital:
            await self._record_apart(sweep, started, handled)
        return handled

    def _begin(self, sweep: Sweep | Upkeep) -> AbstractAsyncContextManager[Transaction]:
        vital = isinstance(sweep, Sweep) and sweep.vital
        timeout = VITAL_LOCK_TIMEOUT if vital else None
        return begin(self._database, left=lambda: STEP_TIMEOUT, lock_timeout=timeout, vital=vital)

    async def _run(self, sweep: Sweep | Upkeep, tx: Transaction) -> int:
        if isinstance(sweep, Sweep):
            return await sweep.step(tx)
        async with asyncio.timeout(STEP_TIMEOUT), self._database.dedicated.connect() as session:
            return await sweep.step(session)

    async def _note_failure(self, sweep: Sweep | Upkeep, started: float, error: Exception) -> None:
        await self._record_apart(sweep, started, 0, f"{type(error).__name__}: {error}"[:500])

    async def _record_apart(
        self, sweep: Sweep | Upkeep, started: float, handled: int, error: str | None = None
    ) -> None:
        """Note a step in a transaction of its own; that it cannot be noted hinders nothing."""
        try:
            async with self._begin(sweep) as tx:
                await self._record(tx, sweep, started, handled, error)
                await tx.commit()
        except Exception as failure:
            if sqlstate(failure) == LOCK_NOT_AVAILABLE or self._is_the_databases(failure, started):
                log.debug("the job %s could not be noted: %s", sweep.name, failure)
            else:
                log.exception("the job %s could not be noted", sweep.name)

    async def _record(
        self,
        tx: Transaction,
        sweep: Sweep | Upkeep,
        started: float,
        handled: int,
        error: str | None = None,
    ) -> None:
        await _sweeps.record(
            tx.db, sweep.name, duration_ms=_elapsed(started), handled=handled, error=error
        )

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopped.wait()
        except TimeoutError:
            return


def sweeps(
    registry: Registry, settings: Settings, keys: KeyRing | None = None
) -> list[Sweep | Upkeep]:
    """Every declared job, and the bus's own."""
    pace, kept = settings.sweep_interval, settings.idempotency_retention
    ring = keys or KeyRing.parse("")
    outbox = timedelta(days=settings.outbox_retention_days)

    async def forget_requests(tx: Transaction) -> int:
        return await _commit.forget_requests(tx.db, retention=kept, limit=REQUESTS_PER_STEP)

    async def rotate_credentials(tx: Transaction) -> int:
        return await _sealed.rotate(tx.db, ring, limit=ROTATED_PER_STEP)

    async def keep_outbox(session: AsyncConnection) -> int:
        return await _outbox_partitions.keep(session, retention=outbox)

    def declared_step(job: Periodic) -> Callable[[Transaction], Awaitable[int]]:
        return partial(run_job, registry, job, pulse=settings.sweeper)

    def keep_daily(table: Partitioned) -> Upkeep:
        kept = timedelta(days=getattr(settings, table.daily.retention))
        step = partial(partitions.keep, table=table, retention=kept)
        return Upkeep(table.daily.job, step, DAILY_INTERVAL * pace)

    declared = [
        Sweep(job.name, declared_step(job), job.every * pace, job.limit, job.vital)
        for job in registry.jobs
    ]
    return [
        *declared,
        Sweep("forget_requests", forget_requests, 10 * pace, REQUESTS_PER_STEP),
        Sweep("rotate_credentials", rotate_credentials, 60 * pace, ROTATED_PER_STEP),
        Upkeep("keep_outbox", keep_outbox, OUTBOX_INTERVAL * pace),
        *(keep_daily(table) for table in PARTITIONED.values()),
    ]


def _elapsed(started: float) -> int:
    return int((time.monotonic() - started) * 1000)
