"""When a check is over and how it went, decided without looking anything up."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from bus.handling import Decision
from contracts.health.checks import Check, CheckCompleted, CheckTimedOut, WorkerCheck
from handlers.health.states import CHECK

PASSING = {"healthy", "degraded"}


class Tally(NamedTuple):
    """Workers of one check that were waited for and no longer are."""

    passed: int = 0
    failed: int = 0
    silent: int = 0
    """Those that ran out of time."""


def tally(workers: Iterable[WorkerCheck]) -> Tally:
    """What these workers add to the counts of their check."""
    statuses = [worker.status for worker in workers]
    return Tally(*(statuses.count(status) for status in ("completed", "failed", "timeout")))


def count(check: Check, added: Tally, now: datetime) -> Check:
    """The check with these workers counted."""
    return check.evolve(
        now,
        workers_completed=check.workers_completed + added.passed + added.failed,
        workers_passed=check.workers_passed + added.passed,
        workers_failed=check.workers_failed + added.failed + added.silent,
    )


def nobody_left(check: Check) -> bool:
    """Whether every worker has passed or failed."""
    return check.workers_passed + check.workers_failed >= check.workers_total


def close(check: Check, score: float | None, now: datetime) -> Decision[Check]:
    """The check at its end, with the mean score of its workers."""
    CHECK.require(check, "close")

    silent = check.workers_completed < check.workers_total
    passed = check.workers_failed == 0
    closed = check.model_copy(
        update={
            "status": "timeout" if silent else "completed" if passed else "failed",
            "overall_score": score,
            "completed_at": now,
        }
    )

    event = CheckTimedOut(check=closed) if silent else CheckCompleted(check=closed)

    return Decision(closed, event)
