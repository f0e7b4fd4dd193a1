"""What was never answered is closed: runs, workers in a check, and then their check."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.handling import Decision, Emit, carry_out, periodic
from bus.storage import entities as _entities
from contracts.health.checks import CheckCompleted, CheckTimedOut, WorkerCheck
from contracts.health.test_runs import TestRun, TestRunFinished
from handlers.health._run_rules import duration_ms
from handlers.health._settling import settle
from handlers.health.states import TEST_RUN, WORKER_CHECK
from persistence.health import sweeping as _sweeping


@periodic(every=1.0, limit=200, emits=(TestRunFinished,))
async def expire_test_runs(
    *, db: AsyncConnection, emit: Emit, now: datetime, served_at: datetime, limit: int
) -> int:
    """Close runs that take longer than they may; returns how many, ``limit`` at most."""
    late = await _sweeping.lock_expired_runs(db, now=served_at, limit=limit)

    decisions = [expire_run(run, now) for run in late]
    await carry_out(decisions, db=db, emit=emit)

    return len(decisions)


@periodic(every=1.0, limit=500, emits=(CheckCompleted, CheckTimedOut))
async def expire_worker_checks(
    *, db: AsyncConnection, emit: Emit, now: datetime, served_at: datetime, limit: int
) -> int:
    """Give up workers that did not answer in time, and close the checks that waited for them."""
    silent = await _sweeping.lock_unanswered(db, now=served_at, limit=limit)
    if not silent:
        return 0

    expired = [expire_worker(worker, now) for worker in silent]
    await _entities.save(db, expired)
    await settle(expired, db=db, emit=emit, now=now)

    return len(expired)


def expire_run(run: TestRun, now: datetime) -> Decision[TestRun]:
    """A run that is not waited for any more."""
    TEST_RUN.require(run, "expire")

    took = duration_ms(run.started_at, now)

    expired = run.evolve(now, status="timeout", duration_ms=took, completed_at=now)

    return Decision(expired, TestRunFinished(test_run=expired))


def expire_worker(worker: WorkerCheck, now: datetime) -> WorkerCheck:
    """A worker that is not waited for any more."""
    WORKER_CHECK.require(worker, "expire")

    return worker.evolve(now, status="timeout", completed_at=now)
