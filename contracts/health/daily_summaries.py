"""Daily summaries: how a day was."""

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
    """There is no summary of this day."""

    id: Id | None = None
    day: date | None = None

    @property
    def detail(self) -> str:
        """Which summary was asked for."""
        return f"there is no daily summary {self.id or f'of {self.day}'}"


class NoRunsOfDay(Unprocessable, detail="no run of {day} passed or failed"):
    """There is nothing to sum up: a day without runs is not a healthy one."""

    day: date


class DayNotBegun(Unprocessable, detail="{day} has not begun, UTC"):
    """A day that lies ahead cannot be summed up."""

    day: date


class DailySummary(Entity, not_found=DailySummaryNotFound):
    """How a day was, UTC."""

    day: date
    """Unique among summaries."""
    overall_status: DayStatus
    total: Count
    passed: Count
    failed: Count
    skipped: Count
    mean_latency_ms: Measure | None
    cost_usd: Usd | None
    """What the calls to models cost."""
    model_calls: Count
    issues: Json | None
    recommendations: Json | None


class DailySummaryChanged(Event, type="daily_summary.changed"):
    """A day was summed up, for the first time or anew."""

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
    """Let the summary of a day be what the request says; the reply is the row of that day."""

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
    """The summary of a day."""

    day: date


class ListDailySummaries(ListOf[DailySummary], subject="db.daily_summaries.list"):
    """Summaries of days, the latest first."""

    order: Literal["day", "-day"] = "-day"


class ComputeDailySummary(
    Command[DailySummary],
    subject="db.daily_summaries.compute",
    errors=(NoRunsOfDay, DayNotBegun),
    emits=(DailySummaryChanged,),
    example={"day": "2026-01-02"},
):
    """Sum a day up from its runs; issues and recommendations stay as they are.

    ``healthy``: none failed. ``degraded``: fewer than half failed. ``critical``: half or more.
    """

    day: date
