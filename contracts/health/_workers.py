"""What checks and schedules say about workers."""

from typing import Annotated, Literal

from pydantic import Field

from bus.contract import (
    Conflict,
    Count,
    Id,
    JsonObject,
    Name,
    NotFound,
    Reply,
    Request,
    Text,
    Time,
    Unprocessable,
    Url,
)
from contracts.health._fields import Score

CheckId = Id
WorkerCheckId = Id

OverallStatus = Literal["healthy", "degraded", "unhealthy", "critical"]
WorkerCheckStatus = Literal["pending", "running", "completed", "failed", "timeout", "cancelled"]
TimeoutMinutes = Annotated[int, Field(ge=1, le=24 * 60)]

MAX_WORKERS = 2_000


class CheckNotFound(NotFound, detail="check {id} does not exist"):
    """There is no such check."""

    id: CheckId


class WorkerCheckNotFound(NotFound):
    """There is no such check of a worker."""

    id: WorkerCheckId | None = None
    worker_name: Name | None = None

    @property
    def detail(self) -> str:
        """Which one was asked for."""
        if self.id is not None:
            return f"worker check {self.id} does not exist"
        return f"worker {self.worker_name} has never been part of a check"


class AlreadyReported(Conflict, detail="{worker_name} has already reported: {overall_status}"):
    """The worker has already reported to this check; its first report stays."""

    worker_check_id: WorkerCheckId
    worker_name: Name
    overall_status: OverallStatus


class NoWorkerMatched(Unprocessable):
    """No known worker matches these filters: the check could never end."""


class CheckedWorker(Request):
    """A worker that is to be checked."""

    name: Name
    type: Name
    url: Url | None = None


class WorkerFilters(Request):
    """A selection among the workers of earlier checks; a filter that is left out matches any."""

    names: Annotated[list[Name], Field(min_length=1, max_length=500)] | None = None
    types: Annotated[list[Name], Field(min_length=1, max_length=100)] | None = None


class WorkerCheckBrief(Reply):
    """The part of one worker in a check, as far as it is known before its report."""

    id: WorkerCheckId
    worker_name: Name
    worker_type: Name
    worker_url: Url | None


class WorkerCheckSummary(WorkerCheckBrief):
    """The part of one worker in a check, without its tests, warnings and raw report."""

    status: WorkerCheckStatus
    overall_status: OverallStatus | None
    score: Score | None
    error_message: Text | None
    completed_at: Time | None


class SuiteResult(Request):
    """The outcome of the tests of one kind."""

    total: Count
    passed: Count
    failed: Count
    results: JsonObject | None = None


class WorkerTests(Request):
    """The tests that a worker ran, by kind."""

    unit: SuiteResult | None = None
    integration: SuiteResult | None = None
    performance: SuiteResult | None = None


class Connectivity(Request):
    """What a worker can reach; null if it did not try."""

    orchestrator: bool | None = None
    external_api: bool | None = None
    database: bool | None = None
