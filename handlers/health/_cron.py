"""Due times of schedules: five cron fields, UTC."""

from __future__ import annotations

from datetime import datetime

from cronsim import CronSim, CronSimError

from contracts.health.schedules import InvalidSchedule


def next_due(schedule: str, after: datetime) -> datetime:
    """The first due time after this one; a schedule that has none is refused."""
    try:
        return next(CronSim(schedule, after))
    except CronSimError as error:
        raise InvalidSchedule(schedule=schedule, reason=str(error)) from None
    except StopIteration:
        raise InvalidSchedule(schedule=schedule, reason="No such time in 50 years") from None


def due_times(schedule: str, since: datetime, now: datetime) -> tuple[datetime, datetime]:
    """The latest due time up to now, but not before ``since``, and the next one."""
    following = next_due(schedule, now)
    latest = next(CronSim(schedule, following, reverse=True))
    return max(latest, since), following
