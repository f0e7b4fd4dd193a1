"""Leases that ran out: their tasks go back to the queue, or to a person."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.handling import Decision, Emit, carry_out, periodic
from contracts.planning.tasks import Task, TaskBlocked, TaskLeaseExpired
from handlers.planning.states import TASK
from handlers.planning.task_rules import MAX_RETRIES, UNCLAIMED
from persistence.planning import tasks


@periodic(every=1.0, limit=200, vital=True, emits=(TaskLeaseExpired, TaskBlocked))
async def expire_task_leases(
    *, db: AsyncConnection, emit: Emit, now: datetime, served_at: datetime, limit: int
) -> int:
    """Take tasks back whose lease is over; returns how many, ``limit`` at most."""
    expired = await tasks.lock_expired(db, now=served_at, limit=limit)

    decisions = [expire_lease(task, now=now) for task in expired]
    await carry_out(decisions, db=db, emit=emit)

    return len(decisions)


def expire_lease(task: Task, *, now: datetime) -> Decision[Task]:
    """Back to pending with one retry less; blocked when there was none left."""
    TASK.require(task, "expire")
    exhausted = task.retry_count >= MAX_RETRIES

    retries = task.retry_count if exhausted else task.retry_count + 1
    freed = task.evolve(now, status="pending", retry_count=retries, **UNCLAIMED)
    expired = TaskLeaseExpired(task=freed, expired_attempt=task.attempt, claimed_by=task.claimed_by)
    if not exhausted:
        return Decision(freed, expired)

    reason = f"The lease ran out {MAX_RETRIES + 1} times; attempt {task.attempt} was the last."
    blocked = freed.evolve(now, status="blocked", blocked_reason=reason)

    return Decision(blocked, expired, TaskBlocked(task=blocked, previous_status=task.status))
