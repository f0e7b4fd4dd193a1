"""Test runs: the outcome of running a test definition."""

from typing import Annotated, Literal

from pydantic import Field

from bus.contract import (
    AlreadyExists,
    Command,
    Conflict,
    Count,
    Entity,
    Event,
    GetOf,
    Id,
    InvalidReference,
    InvalidTransition,
    JsonObject,
    ListOf,
    Name,
    NotFound,
    Query,
    Reply,
    Request,
    Summary,
    Time,
)
from contracts.health._fields import (
    FinishedStatus,
    RunStatus,
    TestDefinitionId,
    TestRunId,
    TriggeredBy,
)
from contracts.health.test_definitions import HttpStatus

EXAMPLE_ID = "0199c0de-0000-7000-8000-000000000001"


class TestRunNotFound(NotFound, detail="test run {id} does not exist"):
    """There is no such test run."""

    id: TestRunId


class ResultContradictsExpectation(
    Conflict, detail="status code {status_code} is not the {expected_status} that a success needs"
):
    """A success was reported with another HTTP status than the test definition expects."""

    test_definition_id: TestDefinitionId
    status_code: int
    expected_status: int


class TestRun(Entity, not_found=TestRunNotFound):
    """One run of a test definition."""

    test_definition_id: TestDefinitionId
    session_id: Id | None
    """The round of tests that it belongs to."""
    ordinal: Count | None
    """Its place in the session; unique there."""
    status: RunStatus
    triggered_by: TriggeredBy
    environment: Name
    expected_status: HttpStatus
    """What its definition expected when it was started."""
    result: JsonObject | None
    """The findings; ``status_code`` is the HTTP status of the response."""
    error_message: Summary | None
    duration_ms: Count | None
    metrics: JsonObject | None
    started_at: Time
    completed_at: Time | None
    timeout_at: Time
    """When it is closed with the status ``timeout``, unless it finishes earlier."""


class TestRunStarted(Event, type="test_run.started"):
    """A test run was started."""

    test_run: TestRun


class TestRunFinished(Event, type="test_run.finished"):
    """A test run is over, whatever its outcome."""

    test_run: TestRun


class TestRuns(Reply):
    """Test runs, the latest first."""

    items: list[TestRun]


class RecordedRun(Reply):
    """A test run that was recorded."""

    id: TestRunId
    test_definition_id: TestDefinitionId
    status: FinishedStatus


class RecordedRuns(Reply):
    """The test runs that were recorded, in the order of the request."""

    items: list[RecordedRun]


class Outcome(Request):
    """The outcome of a test run."""

    status: FinishedStatus
    result: JsonObject | None = None
    """``status_code`` is compared with the status that the definition expects."""
    error_message: Summary | None = None
    duration_ms: Count | None = None
    """If left out for a run that was started, the time since its start."""
    metrics: JsonObject | None = None


class RecordedItem(Outcome):
    """A test run from its start to its end."""

    id: TestRunId | None = None
    """A new one if left out."""
    test_definition_id: TestDefinitionId
    ordinal: Count | None = None
    triggered_by: TriggeredBy = "manual"
    environment: Name = "production"
    completed_at: Time | None = None
    """Now if left out; a time ahead of the database's clock counts as now."""


class StartTestRun(
    Command[TestRun],
    subject="db.test_runs.start",
    errors=(InvalidReference, AlreadyExists),
    emits=(TestRunStarted,),
    example={"test_definition_id": "homepage", "triggered_by": "cron"},
):
    """Start a test run; ``finish`` reports its outcome."""

    id: TestRunId | None = None
    test_definition_id: TestDefinitionId
    session_id: Id | None = None
    ordinal: Count | None = None
    triggered_by: TriggeredBy = "manual"
    environment: Name = "production"


class FinishTestRun(
    Command[TestRun],
    Outcome,
    subject="db.test_runs.finish",
    errors=(TestRunNotFound, InvalidTransition, ResultContradictsExpectation),
    emits=(TestRunFinished,),
    example={"id": EXAMPLE_ID, "status": "success", "result": {"status_code": 200}},
):
    """Finish a test run with its outcome. A run can be finished only once."""

    id: TestRunId


class RecordTestRun(
    Command[TestRun],
    RecordedItem,
    subject="db.test_runs.record",
    errors=(InvalidReference, AlreadyExists, ResultContradictsExpectation),
    emits=(TestRunFinished,),
    example={"test_definition_id": "homepage", "status": "failure", "duration_ms": 1200},
):
    """Record a test run that is already over: start and finish in one request."""

    session_id: Id | None = None


class RecordManyTestRuns(
    Command[RecordedRuns],
    subject="db.test_runs.record_many",
    errors=(InvalidReference, AlreadyExists, ResultContradictsExpectation),
    emits=(TestRunFinished,),
    example={
        "session_id": EXAMPLE_ID,
        "items": [{"test_definition_id": "homepage", "status": "success", "ordinal": 1}],
    },
):
    """Record up to 500 test runs of one session, all or nothing."""

    session_id: Id
    items: Annotated[list[RecordedItem], Field(min_length=1, max_length=500)]


class GetTestRun(GetOf[TestRun], subject="db.test_runs.get"):
    """Get one test run by its id."""

    id: TestRunId


class ListTestRuns(
    ListOf[TestRun],
    subject="db.test_runs.list",
    example={"test_definition_id": "homepage", "status": "failure"},
):
    """List the test runs that match every filter given, the latest first."""

    test_definition_id: TestDefinitionId | None = None
    session_id: Id | None = None
    status: RunStatus | None = None
    since: Time | None = None
    """Only runs that were started then or later."""
    order: Literal["started_at", "-started_at"] = "-started_at"


class GetLatestTestRuns(Query[TestRuns], subject="db.test_runs.latest"):
    """Get the test runs that were started last, of any test; as many as fit into one message."""

    limit: Annotated[int, Field(ge=1, le=500)] = 20
