"""A check and the parts of its workers as they are when it starts."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from bus.contract import Entity
from bus.handling import values_of
from bus.kit.id_series import following_id
from contracts.health.checks import Check, CheckedWorker, StartCheck, WorkerCheck

_NOT_YET = dict.fromkeys(
    WorkerCheck.model_fields.keys()
    - Entity.model_fields.keys()
    - {"check_id", "status", "requested_at"}
)


def new_check(command: StartCheck, workers: int, *, id_: UUID, now: datetime) -> Check:
    """A check that waits for this many workers."""
    return Check.first(
        id=id_,
        now=now,
        **values_of(command, "id", "workers", "worker_filters", "timeout_minutes"),
        status="running",
        workers_total=workers,
        workers_completed=0,
        workers_passed=0,
        workers_failed=0,
        overall_score=None,
        analysis=None,
        recommendations=None,
        started_at=now,
        completed_at=None,
        timeout_at=now + timedelta(minutes=command.timeout_minutes),
    )


def new_worker_check(check: Check, worker: CheckedWorker, number: int) -> WorkerCheck:
    """The part of one worker, who has not answered yet."""
    values = _NOT_YET | {
        "worker_name": worker.name,
        "worker_type": worker.type,
        "worker_url": worker.url,
    }
    return WorkerCheck.first(
        id=following_id(check.id, number + 1),
        now=check.started_at,
        **values,
        check_id=check.id,
        status="pending",
        requested_at=check.started_at,
    )
