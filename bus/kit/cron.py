"""Due times of schedules: five cron fields, read on the clocks of a time zone.

A schedule names local times, and clocks are changed. Each local time is due once: one that a change
leaves out at the first moment after it, one that comes twice when it comes first. So a schedule of
every 15 minutes pauses while an hour is repeated.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

_SECOND = timedelta(seconds=1)


class NeverDue(ValueError):
    """The cron fields name no time that ever comes; the message says why."""


def next_due(fields: str, after: datetime, time_zone: str = "UTC") -> datetime:
    """The first due time after this one, in UTC; fields that have none are ``NeverDue``."""
    zone = ZoneInfo(time_zone)
    return _moment(_following(fields, after, zone), zone)


def due_times(
    fields: str, since: datetime, now: datetime, time_zone: str = "UTC"
) -> tuple[datetime, datetime]:
    """The latest due time up to now, but not before ``since``, and the next one."""
    zone = ZoneInfo(time_zone)
    following = _following(fields, now, zone)
    latest = _moment(next(CronSim(fields, following, reverse=True)), zone)
    return max(latest, since), _moment(following, zone)


def _following(fields: str, after: datetime, zone: ZoneInfo) -> datetime:
    """What the clocks show when it is due next.

    A later local time is never due at an earlier moment, so it is the first one that lies beyond.
    While an hour is repeated, what is left of it does not: it was due the first time.
    """
    try:
        for local in CronSim(fields, after.astimezone(zone).replace(tzinfo=None)):
            if _moment(local, zone) > after:
                return local
    except CronSimError as error:
        raise NeverDue(str(error)) from None
    raise NeverDue("No such time in 50 years")


def _moment(local: datetime, zone: ZoneInfo) -> datetime:
    """When clocks first show this time, or first show a later one."""
    moment = local.replace(tzinfo=zone).astimezone(UTC)
    if moment.astimezone(zone).replace(tzinfo=None) == local:
        return moment
    before, after = local.replace(tzinfo=zone, fold=1).astimezone(UTC), moment
    while after - before > _SECOND:
        middle = (before + (after - before) / 2).replace(microsecond=0)
        if middle.astimezone(zone).replace(tzinfo=None) < local:
            before = middle
        else:
            after = middle
    return after
