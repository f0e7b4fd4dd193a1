"""Times that others report, by clocks that are not the database's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

BEGINNING = datetime.min.replace(tzinfo=UTC)


def reported(time: datetime, now: datetime) -> datetime:
    """When something happened that is reported at ``now``: not after it, whatever a clock says."""
    return min(time, now)


def before(time: datetime, duration: timedelta) -> datetime:
    """So long before a time, as far as times reach."""
    return time - duration if time - BEGINNING >= duration else BEGINNING
