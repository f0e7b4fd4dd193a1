"""Test runs that were never finished are closed."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.handling import Decision, Emit, carry_out, periodic
from contracts.health.test_runs import TestRun, TestRunFinished
from handlers.health._test_run_rules import duration_ms
from handlers.health.states import TEST_RUN
from persistence.health import health_sweeping as _health_sweeping


@periodic(every=1.0, limit=200, emits=(TestRunFinished,))
async def expire_test_runs(
    *, db: AsyncConnection, emit: Emit, now: datetime, served_at: datetime, limit: int
) -> int:
    """Close runs that take longer than they may; returns how many, ``limit`` at most."""
    late = await _health_sweeping.lock_expired_runs(db, now=served_at, limit=limit)

    decisions = [expire_run(run, now) for run in late]
    await carry_out(decisions, db=db, emit=emit)

    return len(decisions)


def expire_run(run: TestRun, now: datetime) -> Decision[TestRun]:
    """A run that is no longer waited for."""
    TEST_RUN.require(run, "expire")

    took = duration_ms(run.started_at, now)

    expired = run.evolve(now, status="timeout", duration_ms=took, completed_at=now)

    return Decision(expired, TestRunFinished(test_run=expired))
