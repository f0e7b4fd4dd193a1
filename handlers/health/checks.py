"""What happens to checks and to the workers in them."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.handling import Decision, Emit, decider, handler, query, reaction, values_of
from bus.storage import add, get, get_locked, save
from contracts.health.checks import (
    MAX_WORKERS,
    AlreadyReported,
    CancelCheck,
    Check,
    CheckCancelled,
    CheckCompleted,
    CheckDetails,
    CheckStarted,
    CheckTimedOut,
    GetCheck,
    GetLatestWorkerCheck,
    NoWorkerMatched,
    ReportWorkerCheck,
    StartCheck,
    StartedCheck,
    WorkerCheck,
    WorkerCheckBrief,
    WorkerCheckReported,
)
from handlers.health._check_rules import PASSING
from handlers.health._new_check import new_check, new_worker_check
from handlers.health._settling import settle
from handlers.health.states import CHECK, WORKER_CHECK
from persistence.health import checks


@handler
async def start_check(
    command: StartCheck, *, db: AsyncConnection, emit: Emit, new_id: UUID, now: datetime
) -> StartedCheck:
    workers = command.workers
    if workers is None:
        assert command.worker_filters is not None
        workers = await checks.known_workers(db, command.worker_filters, limit=MAX_WORKERS)
    if not workers:
        raise NoWorkerMatched

    check = new_check(command, len(workers), id_=new_id, now=now)
    parts = [new_worker_check(check, worker, number) for number, worker in enumerate(workers)]
    await add(db, [check], beside=parts)
    brief = [
        WorkerCheckBrief.model_validate(part.model_dump(include=set(WorkerCheckBrief.model_fields)))
        for part in parts
    ]
    emit(CheckStarted(check=check, workers=brief))

    return StartedCheck(check=check, workers=brief)


@decider
def report_worker_check(
    command: ReportWorkerCheck, worker_check: WorkerCheck, *, now: datetime
) -> Decision[WorkerCheck]:
    if worker_check.overall_status is not None:
        raise AlreadyReported(
            worker_check_id=worker_check.id,
            worker_name=worker_check.worker_name,
            overall_status=worker_check.overall_status,
        )
    WORKER_CHECK.require(worker_check, "report")

    reported = worker_check.evolve(
        now,
        **values_of(command, "worker_check_id"),
        status="completed" if command.overall_status in PASSING else "failed",
        completed_at=now,
    )

    return Decision(reported, WorkerCheckReported(worker_check=reported))


@query
async def get_check(query: GetCheck, *, db: AsyncConnection) -> CheckDetails:
    check = await get(db, Check, query.id)
    return CheckDetails(check=check, workers=await checks.summaries(db, check.id))


@handler
async def cancel_check(
    command: CancelCheck, *, db: AsyncConnection, emit: Emit, now: datetime
) -> Check:
    waiting = await checks.lock_open_workers(db, command.id)
    check = await get_locked(db, Check, command.id)
    CHECK.require(check, "cancel")

    cancelled = check.evolve(now, status="cancelled", completed_at=now)
    await save(db, [cancelled])
    await save(db, [part.evolve(now, status="cancelled", completed_at=now) for part in waiting])
    emit(CheckCancelled(check=cancelled))

    return cancelled


@query
async def get_latest_worker_check(
    query: GetLatestWorkerCheck, *, db: AsyncConnection
) -> WorkerCheck:
    return await checks.latest_of(db, query.worker_name)


@reaction(emits=(CheckCompleted, CheckTimedOut))
async def count_reports(
    events: Sequence[WorkerCheckReported], *, db: AsyncConnection, emit: Emit, now: datetime
) -> None:
    """One batch of reports locks its check once, so they do not queue for it one by one."""
    await settle([event.worker_check for event in events], db=db, emit=emit, now=now)
