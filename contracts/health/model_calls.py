"""Model calls: the calls to AI models that were made while testing."""

from bus.contract import (
    AlreadyExists,
    Command,
    Count,
    Entity,
    Event,
    Id,
    InvalidReference,
    JsonObject,
    ListOf,
    Markdown,
    Name,
    NotFound,
    Query,
    Ref,
    Reply,
    Summary,
    Version,
)
from contracts.health._fields import Days, Measure, TestRunId, Usd
from contracts.health._model_call_parts import DetachedModelCall, ModelCallDetached, ModelCallId
from contracts.health.test_runs import TestRun


class ModelCallNotFound(NotFound, detail="model call {id} does not exist"):
    """There is no such model call."""

    id: ModelCallId


class ModelCall(Entity, not_found=ModelCallNotFound):
    """One call to an AI model, made while testing."""

    test_run_id: TestRunId | None
    """The test run that it was made for; null once that run is gone."""
    model: Name
    provider: Name
    prompt: Markdown | None
    response: Markdown | None
    tokens: Count | None
    cost_usd: Usd | None
    latency_ms: Count | None
    success: bool
    error_message: Summary | None
    metadata: JsonObject | None


class ModelUsage(Reply):
    """How much one model of one provider was used, counting only calls that succeeded."""

    provider: Name
    model: Name
    calls: Count
    tokens: int
    cost_usd: Usd
    mean_latency_ms: Measure | None
    """Over the calls whose latency is known."""


class ModelUsages(Reply):
    """Usage per model and provider, the most called first."""

    items: list[ModelUsage]


class RecordModelCall(
    Command[ModelCall],
    subject="db.model_calls.record",
    errors=(InvalidReference, AlreadyExists),
    example={
        "model": "small-1",
        "provider": "example",
        "success": True,
        "tokens": 512,
        "cost_usd": "0.0015",
        "latency_ms": 840,
    },
):
    """Record a call to a model. No event is emitted: prompts do not belong in events."""

    id: ModelCallId | None = None
    test_run_id: Ref[TestRun] | None = None
    model: Name
    provider: Name
    prompt: Markdown | None = None
    response: Markdown | None = None
    tokens: Count | None = None
    cost_usd: Usd | None = None
    latency_ms: Count | None = None
    success: bool
    error_message: Summary | None = None
    metadata: JsonObject | None = None


class ListModelCalls(ListOf[ModelCall], subject="db.model_calls.list"):
    """List model calls, of one test run or of all."""

    test_run_id: TestRunId | None = None


class GetModelUsage(
    Query[ModelUsages], subject="db.model_calls.usage", expensive=True, example={"days": 7}
):
    """Get the successful calls, tokens, cost and mean latency per model and provider."""

    days: Days = 30
