"""The sweeper's log: when each job ran last, how long it took, what it did."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage.locks import SWEEP
from bus.storage.own.tables import sweeps

_RECORD = text(
    """
    INSERT INTO bus.sweeps (job, last_run_at, last_duration_ms, last_error, handled)
    VALUES (:job, clock_timestamp(), :duration, :error, :handled)
    ON CONFLICT (job) DO UPDATE SET
        last_run_at = excluded.last_run_at,
        last_duration_ms = excluded.last_duration_ms,
        last_error = excluded.last_error,
        handled = bus.sweeps.handled + excluded.handled
    """
)


class LastRun(NamedTuple):
    """The last run of a job; `handled` counts what all its runs did, errors are those of this."""

    at: datetime | None
    duration_ms: int | None
    error: str | None
    handled: int


async def try_lock(db: AsyncConnection, job: str) -> bool:
    """Take a job for this transaction, unless another process is at it."""
    return await SWEEP.try_to_hold(db, job)


async def record(
    db: AsyncConnection, job: str, *, duration_ms: int, handled: int, error: str | None
) -> None:
    """Note that a job ran."""
    values: dict[str, Any] = {
        "job": job,
        "duration": duration_ms,
        "handled": handled,
        "error": error,
    }
    await db.execute(_RECORD, values)


async def last_runs(db: AsyncConnection) -> dict[str, LastRun]:
    """The last run of each job that ever ran."""
    rows = await db.execute(
        select(
            sweeps.c.job,
            sweeps.c.last_run_at,
            sweeps.c.last_duration_ms,
            sweeps.c.last_error,
            sweeps.c.handled,
        )
    )
    return {job: LastRun(*run) for job, *run in rows}
