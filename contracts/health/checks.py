"""Checks: one round over the workers of the fleet, and what each of them reports."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from bus.contract import (
    AlreadyExists,
    Command,
    Count,
    Entity,
    Event,
    InvalidTransition,
    JsonObject,
    ListOf,
    Markdown,
    Name,
    Query,
    Reply,
    Summary,
    Time,
    Title,
    Url,
)
from contracts.health._fields import Measure, Score
from contracts.health._workers import (
    MAX_WORKERS,
    AlreadyReported,
    CheckedWorker,
    CheckId,
    CheckNotFound,
    Connectivity,
    NoWorkerMatched,
    OverallStatus,
    SuiteResult,
    TimeoutMinutes,
    WorkerCheckBrief,
    WorkerCheckId,
    WorkerCheckNotFound,
    WorkerCheckStatus,
    WorkerCheckSummary,
    WorkerFilters,
    WorkerTests,
)

TriggerType = Literal["cron", "on_demand", "package"]
CheckStatus = Literal["running", "completed", "failed", "timeout", "cancelled"]
Warnings = Annotated[list[Title], Field(max_length=100)]

EXAMPLE_ID = "0199c0de-0000-7000-8000-000000000001"


class Check(Entity, not_found=CheckNotFound):
    """One round over the workers. It is over when every worker has passed or failed."""

    trigger_type: TriggerType
    trigger_source: Name | None
    status: CheckStatus
    """completed: every worker passed; failed: not all passed; timeout: not all answered."""
    include_unit: bool
    include_integration: bool
    include_performance: bool
    workers_total: Count
    workers_completed: Count
    """Workers that reported."""
    workers_passed: Count
    """Workers that reported that they are healthy or degraded."""
    workers_failed: Count
    """Workers that reported otherwise, or did not answer in time."""
    overall_score: Score | None
    """The mean of the workers' scores, once the check is over, if any worker gave one."""
    analysis: Markdown | None
    recommendations: Markdown | None
    started_at: Time
    completed_at: Time | None
    timeout_at: Time


class WorkerCheck(Entity, not_found=WorkerCheckNotFound):
    """The part of one worker in a check."""

    check_id: CheckId
    worker_name: Name
    """Unique within the check."""
    worker_type: Name
    worker_url: Url | None
    status: WorkerCheckStatus
    """completed: it passed; failed: it reported and did not pass; timeout: it did not answer."""
    overall_status: OverallStatus | None
    score: Score | None
    uptime_s: Measure | None
    memory_mb: Measure | None
    cpu_percent: Measure | None
    response_ms: Measure | None
    connectivity: Connectivity | None
    tests: WorkerTests | None
    error_message: Summary | None
    warnings: Warnings | None
    raw: JsonObject | None
    requested_at: Time
    completed_at: Time | None


class CheckDetails(Reply):
    """A check with its workers, ordered by name."""

    check: Check
    workers: list[WorkerCheckSummary]


class StartedCheck(Reply):
    """A check that was started; each worker reports with the id of its part."""

    check: Check
    workers: list[WorkerCheckBrief]


class CheckStarted(Event, type="check.started"):
    """A check was started: a report is expected of each of these workers."""

    check: Check
    workers: list[WorkerCheckBrief]


class CheckCompleted(Event, type="check.completed"):
    """The last worker has reported; the status says whether all of them passed."""

    check: Check


class CheckTimedOut(Event, type="check.timed_out"):
    """A check is over, but not every worker answered in time."""

    check: Check


class CheckCancelled(Event, type="check.cancelled"):
    """A check was cancelled; reports to it are refused from now on."""

    check: Check


class WorkerCheckReported(Event, type="worker_check.reported"):
    """A worker has reported to a check."""

    worker_check: WorkerCheck


def _distinct(workers: list[CheckedWorker]) -> list[CheckedWorker]:
    if len({worker.name for worker in workers}) != len(workers):
        raise ValueError("must not name a worker twice")
    return workers


class StartCheck(
    Command[StartedCheck],
    subject="db.checks.start",
    errors=(NoWorkerMatched, AlreadyExists),
    emits=(CheckStarted,),
    example={
        "trigger_type": "on_demand",
        "workers": [{"name": "worker-1", "type": "builder"}],
    },
):
    """Start a check of the named workers, or of the known ones that match the filters.

    A worker is known from the last check that it was part of.
    """

    id: CheckId | None = None
    trigger_type: TriggerType
    trigger_source: Name | None = None
    workers: (
        Annotated[
            list[CheckedWorker],
            Field(min_length=1, max_length=MAX_WORKERS),
            AfterValidator(_distinct),
        ]
        | None
    ) = None
    worker_filters: WorkerFilters | None = None
    timeout_minutes: TimeoutMinutes = 30
    include_unit: bool = True
    include_integration: bool = True
    include_performance: bool = True

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.workers is None) == (self.worker_filters is None):
            raise ValueError("give either workers or worker_filters")
        return self


class ReportWorkerCheck(
    Command[WorkerCheck],
    subject="db.checks.report",
    errors=(WorkerCheckNotFound, AlreadyReported, InvalidTransition),
    emits=(WorkerCheckReported,),
    example={"worker_check_id": EXAMPLE_ID, "overall_status": "healthy", "score": 0.98},
):
    """Report how a worker is doing. The last report closes the check in the same transaction."""

    worker_check_id: WorkerCheckId
    overall_status: OverallStatus
    score: Score | None = None
    uptime_s: Measure | None = None
    memory_mb: Measure | None = None
    cpu_percent: Measure | None = None
    response_ms: Measure | None = None
    connectivity: Connectivity | None = None
    tests: WorkerTests | None = None
    error_message: Summary | None = None
    warnings: Warnings | None = None
    raw: JsonObject | None = None


class GetCheck(Query[CheckDetails], subject="db.checks.get", errors=(CheckNotFound,)):
    """Get one check with its workers. A worker's full report is in its event."""

    id: CheckId


class ListChecks(ListOf[Check], subject="db.checks.list", example={"status": "running"}):
    """List checks, without their workers."""

    status: CheckStatus | None = None
    trigger_type: TriggerType | None = None


class CancelCheck(
    Command[Check],
    subject="db.checks.cancel",
    errors=(CheckNotFound, InvalidTransition),
    emits=(CheckCancelled,),
):
    """Cancel a running check; the reports made so far stay."""

    id: CheckId


class GetLatestWorkerCheck(
    Query[WorkerCheck],
    subject="db.checks.latest_for_worker",
    errors=(WorkerCheckNotFound,),
    example={"worker_name": "worker-1"},
):
    """Get a worker's part in the last check that it was part of, with everything it reported."""

    worker_name: Name
