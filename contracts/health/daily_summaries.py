"""Daily summaries: how a day went."""

from datetime import date
from typing import Literal

from bus.contract import (
    Command,
    Count,
    Entity,
    Event,
    Id,
    Json,
    ListOf,
    NotFound,
    Query,
    Unprocessable,
)
from contracts.health._fields import Measure, Usd

DayStatus = Literal["healthy", "degraded", "critical"]


class DailySummaryNotFound(NotFound):
    """There is no summary for this day."""

    id: Id | None = None
    day: date | None = None

    @property
    def detail(self) -> str:
        """Which summary was asked for."""
        return f"there is no daily summary {self.id or f'for {self.day}'}"


class NoRunsOfDay(Unprocessable, detail="no test run of {day} passed or failed"):
    """There is nothing to summarize: a day without runs does not count as healthy."""

    day: date


class DayNotBegun(Unprocessable, detail="{day} has not begun yet in UTC"):
    """A day in the future cannot be summarized."""

    day: date


class DailySummary(Entity, not_found=DailySummaryNotFound):
    """How a day went; days are in UTC."""

    day: date
    """Unique among summaries."""
    overall_status: DayStatus
    total: Count
    passed: Count
    failed: Count
    skipped: Count
    mean_latency_ms: Measure | None
    cost_usd: Usd | None
    """The cost of the calls to models."""
    model_calls: Count
    issues: Json | None
    recommendations: Json | None


class DailySummaryChanged(Event, type="daily_summary.changed"):
    """A day was summarized, for the first time or again."""

    daily_summary: DailySummary


class UpsertDailySummary(
    Command[DailySummary],
    subject="db.daily_summaries.upsert",
    errors=(DayNotBegun,),
    emits=(DailySummaryChanged,),
    example={
        "day": "2026-01-02",
        "overall_status": "healthy",
        "total": 12,
        "passed": 12,
        "failed": 0,
    },
):
    """Upsert the summary of a day: it gets the values of the request, and is the reply."""

    day: date
    overall_status: DayStatus
    total: Count
    passed: Count
    failed: Count
    skipped: Count = 0
    mean_latency_ms: Measure | None = None
    cost_usd: Usd | None = None
    model_calls: Count = 0
    issues: Json | None = None
    recommendations: Json | None = None


class GetDailySummary(
    Query[DailySummary],
    subject="db.daily_summaries.get",
    errors=(DailySummaryNotFound,),
    example={"day": "2026-01-02"},
):
    """Get the summary of a day."""

    day: date


class ListDailySummaries(ListOf[DailySummary], subject="db.daily_summaries.list"):
    """List the summaries of days, the latest first."""

    order: Literal["day", "-day"] = "-day"


class ComputeDailySummary(
    Command[DailySummary],
    subject="db.daily_summaries.compute",
    errors=(NoRunsOfDay, DayNotBegun),
    emits=(DailySummaryChanged,),
    example={"day": "2026-01-02"},
):
    """Compute the summary of a day from its runs; issues and recommendations stay as they are.

    ``healthy``: none failed. ``degraded``: fewer than half failed. ``critical``: half or more.
    """

    day: date
