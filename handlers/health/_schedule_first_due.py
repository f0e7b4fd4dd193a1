"""When a schedule that somebody gave is due first."""

from __future__ import annotations

from datetime import datetime

from bus.kit.cron import NeverDue, next_due
from contracts.health.schedules import InvalidSchedule


def first_due(schedule: str, now: datetime, time_zone: str = "UTC") -> datetime:
    """The first due time from now on; a schedule that has none is refused."""
    try:
        return next_due(schedule, now, time_zone)
    except NeverDue as never:
        raise InvalidSchedule(schedule=schedule, reason=str(never)) from None
