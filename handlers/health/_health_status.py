"""What counts of runs mean; no runs mean nothing good."""

from __future__ import annotations

from contracts.health.daily_summaries import DayStatus
from contracts.health.health import Health, HealthStatus, StatusCounts


def health_status(counts: StatusCounts) -> HealthStatus:
    """How things are, by the runs that passed or failed."""
    passed, failed = counts.success, counts.failure + counts.timeout
    total = passed + failed
    if total == 0:
        return HealthStatus(status="unknown", total=0, passed=0, failed=0)
    day = day_status(passed=passed, failed=failed)
    status: Health = "unhealthy" if day == "critical" else day
    return HealthStatus(status=status, total=total, passed=passed, failed=failed)


def day_status(*, passed: int, failed: int) -> DayStatus:
    """How a day was that had runs."""
    if failed == 0:
        return "healthy"
    return "degraded" if failed < passed else "critical"
