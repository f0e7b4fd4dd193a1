"""Test definitions: what is checked, how, and when."""

from typing import Annotated, Literal

from pydantic import Field

from bus.contract import (
    Command,
    Count,
    Entity,
    Event,
    GetOf,
    GoneIds,
    Json,
    JsonObject,
    ListOf,
    Name,
    NotFound,
    Query,
    Reply,
    Summary,
    Time,
)
from contracts.health._fields import Cron, InvalidSchedule, Slug, TestDefinitionId, TestRunId
from contracts.health._model_call_parts import ModelCallDetached

Category = Literal["endpoint", "unit", "integration", "performance", "security", "ai"]
Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
HttpStatus = Annotated[int, Field(ge=100, le=599)]
TimeoutSeconds = Annotated[int, Field(ge=1, le=24 * 60 * 60)]
Address = Annotated[Name, Field(max_length=2_000)]


class TestDefinitionNotFound(NotFound, detail="test definition {id} does not exist"):
    """There is no such test definition."""

    id: TestDefinitionId


class TestDefinition(Entity, not_found=TestDefinitionNotFound):
    """A test: what it checks, how, and when. Workers run it."""

    id: Slug  # type: ignore[assignment]  # people give these ids and read them
    """Given by the caller: lower-case letters, digits and hyphens."""
    description: Summary
    category: Category
    endpoint: Address | None
    """The path or URL that is requested."""
    method: Method | None
    """Null: POST if there is a payload, otherwise GET."""
    payload: Json | None
    expected_status: HttpStatus
    """The HTTP status that a run must get to be a success."""
    enabled: bool
    """Whether it runs by its schedule; if not, it can still be run by hand."""
    schedule: Cron | None
    """In UTC."""
    timeout_seconds: TimeoutSeconds
    """A run that takes longer is closed with the status ``timeout``."""
    retry_attempts: Count
    """How often a worker should try before it reports a failure."""
    config: JsonObject | None
    next_due_at: Time | None
    """When it is due next by its schedule; null if it has no schedule or is not enabled."""


class TestDefinitionContents(Reply):
    """What belonged to a test definition and was deleted with it."""

    runs: Count


class TestDefinitionDeletion(Reply):
    """What was deleted."""

    id: TestDefinitionId
    deleted: TestDefinitionContents


class TestDefinitionChanged(Event, type="test_definition.changed"):
    """A test definition was created or changed."""

    test_definition: TestDefinition


class TestDefinitionDue(Event, type="test_definition.due"):
    """It is time to run a test: emitted once for each due time.

    Due times that passed while the service was not running share one event, for the latest of them.
    """

    test_definition: TestDefinition
    due_at: Time


class TestDefinitionDeleted(Event, type="test_definition.deleted"):
    """A test definition was deleted, and all its runs with it."""

    test_definition: TestDefinition
    """The test definition as it last was, with its version one higher."""
    deleted: TestDefinitionContents
    run_ids: GoneIds = Field(default_factory=list)
    """The first 400 of the runs, in the order of their ids."""


class UpsertTestDefinition(
    Command[TestDefinition],
    subject="db.test_definitions.upsert",
    errors=(InvalidSchedule,),
    emits=(TestDefinitionChanged,),
    example={
        "id": "homepage",
        "description": "The homepage answers",
        "endpoint": "https://example.org/",
        "schedule": "*/5 * * * *",
    },
):
    """Upsert a test definition: it gets the values of the request; omitted fields get defaults.

    If there is none with this id, it is created. A request that changes nothing emits no event.
    """

    id: TestDefinitionId
    description: Summary
    category: Category = "endpoint"
    endpoint: Address | None = None
    method: Method | None = None
    payload: Json | None = None
    expected_status: HttpStatus = 200
    enabled: bool = True
    schedule: Cron | None = None
    """In UTC."""
    timeout_seconds: TimeoutSeconds = 300
    retry_attempts: Annotated[Count, Field(le=100)] = 3
    config: JsonObject | None = None


class GetTestDefinition(
    GetOf[TestDefinition], subject="db.test_definitions.get", example={"id": "homepage"}
):
    """Get one test definition by its id."""

    id: TestDefinitionId


class ListTestDefinitions(
    ListOf[TestDefinition], subject="db.test_definitions.list", example={"enabled": True}
):
    """List the test definitions that match every filter given."""

    category: Category | None = None
    enabled: bool | None = None


class DeleteTestDefinition(
    Command[TestDefinitionDeletion],
    subject="db.test_definitions.delete",
    errors=(TestDefinitionNotFound,),
    emits=(TestDefinitionDeleted, ModelCallDetached),
    example={"id": "homepage"},
):
    """Delete a test definition and all its runs; the model calls made for these are kept."""

    id: TestDefinitionId
