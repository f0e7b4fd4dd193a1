"""Health: what the recent runs say, at a glance."""

from datetime import date
from typing import Annotated, Literal

from pydantic import Field

from bus.contract import Count, Query, Reply, Request, Time
from contracts.health._fields import Days
from contracts.health.daily_summaries import DailySummary
from contracts.health.model_calls import ModelUsage

Health = Literal["healthy", "degraded", "unhealthy", "unknown"]


class LastRuns(Request):
    """The runs that were started most recently."""

    last: Annotated[int, Field(ge=1, le=10_000)]


class RunsSince(Request):
    """The runs that were started then or later."""

    since: Time


class HealthStatus(Reply):
    """The state of health according to the finished runs; skipped ones do not count.

    ``healthy``: none failed. ``degraded``: fewer than half failed. ``unhealthy``: half or more
    failed. ``unknown``: there was no run.
    """

    status: Health
    total: Count
    """Runs that passed or failed."""
    passed: Count
    failed: Count
    """Failures and timeouts."""


class StatusCounts(Reply):
    """How many runs have each status."""

    running: Count = 0
    success: Count = 0
    failure: Count = 0
    skipped: Count = 0
    timeout: Count = 0


class DayTrend(Reply):
    """The runs that were started on one day, UTC."""

    day: date
    runs: StatusCounts


class Dashboard(Reply):
    """The figures that a person wants to see first."""

    latest_summary: DailySummary | None
    last_24_hours: StatusCounts
    usage: list[ModelUsage]
    """The use of models during these days, the most called first."""
    trend: list[DayTrend]
    """One entry per day, the oldest first; a day without runs has zeros."""


class GetHealthStatus(
    Query[HealthStatus],
    subject="db.health.status",
    expensive=True,
    example={"window": {"last": 100}},
):
    """Get the state of health, according to the last runs or to those since a given time."""

    window: LastRuns | RunsSince


class GetDashboard(
    Query[Dashboard], subject="db.health.dashboard", expensive=True, example={"days": 30}
):
    """Get the latest summary, the runs of the last 24 hours, the use of models and the trend."""

    days: Days = 30
