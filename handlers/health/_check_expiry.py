"""Workers in a check that never answered are given up, and then their check is closed."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.handling import Emit, periodic
from bus.storage import entities as _entities
from contracts.health.checks import CheckCompleted, CheckTimedOut, WorkerCheck
from handlers.health._check_settling import settle
from handlers.health.states import WORKER_CHECK
from persistence.health import health_sweeping as _health_sweeping


@periodic(every=1.0, limit=500, emits=(CheckCompleted, CheckTimedOut))
async def expire_worker_checks(
    *, db: AsyncConnection, emit: Emit, now: datetime, served_at: datetime, limit: int
) -> int:
    """Give up workers that did not answer in time, and close the checks that waited for them."""
    silent = await _health_sweeping.lock_unanswered(db, now=served_at, limit=limit)
    if not silent:
        return 0

    expired = [expire_worker(worker, now) for worker in silent]
    await _entities.save(db, expired)
    await settle(expired, db=db, emit=emit, now=now)

    return len(expired)


def expire_worker(worker: WorkerCheck, now: datetime) -> WorkerCheck:
    """A worker that is no longer waited for."""
    WORKER_CHECK.require(worker, "expire")

    return worker.evolve(now, status="timeout", completed_at=now)
