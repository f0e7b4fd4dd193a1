"""Due times in time zones, against a model that looks at every minute of the clocks."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.kit.cron import NeverDue, due_times, next_due

MINUTE = timedelta(minutes=1)
CHANGES = [
    ("Europe/Berlin", "2026-03-29"),
    ("Europe/Berlin", "2026-10-25"),
    ("America/New_York", "2026-03-08"),
    ("America/New_York", "2026-11-01"),
    ("Australia/Lord_Howe", "2026-04-05"),
    ("Australia/Lord_Howe", "2026-10-04"),
    ("Africa/Casablanca", "2026-02-15"),
    ("Africa/Casablanca", "2026-03-22"),
    ("America/Sao_Paulo", "2018-02-18"),
    ("America/Sao_Paulo", "2018-11-04"),
    ("Pacific/Apia", "2011-12-30"),
    ("Asia/Kathmandu", "2026-03-29"),
    ("UTC", "2026-10-25"),
]
"""Zones, and local days around which their clocks are changed (the last two have none)."""

FIELDS = [
    "31 2 * * *",
    "*/15 * * * *",
    "* * * * *",
    "0 0 * * *",
    "*/7 0-3 * * *",
    "30 1,2 * * *",
    "15,45 23 * * *",
    "0 12 */2 * *",
]


@cache
def shown(time_zone: str, day: str) -> list[tuple[datetime, datetime]]:
    """(moment, what clocks show) for every minute of some days around a change."""
    zone = ZoneInfo(time_zone)
    start = datetime.fromisoformat(day).replace(tzinfo=UTC) - timedelta(days=3)
    minutes = (start + number * MINUTE for number in range(7 * 24 * 60))
    return [(moment, moment.astimezone(zone).replace(tzinfo=None)) for moment in minutes]


@cache
def expected(fields: str, time_zone: str, day: str) -> list[datetime]:
    """When it is due: at the minutes at which clocks reach a time of the schedule, never before."""
    wanted = set(local_times(fields, shown(time_zone, day)[0][1]))
    furthest = shown(time_zone, day)[0][1]
    due = []
    for moment, local in shown(time_zone, day)[1:]:
        reached = [furthest + n * MINUTE for n in range(1, (local - furthest) // MINUTE + 1)]
        if wanted.intersection(reached):
            due.append(moment)
        furthest = max(furthest, local)
    return due


def local_times(fields: str, start: datetime) -> Iterator[datetime]:
    for local in CronSim(fields, start):
        if local > start + timedelta(days=9):
            return
        yield local


def day_of(time_zone: str, fields: str, day: str) -> list[str]:
    """When it is due on a local day, as clocks show it."""
    after = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(time_zone)).astimezone(UTC)
    after -= MINUTE
    found: list[str] = []
    while True:
        after = next_due(fields, after, time_zone)
        local = after.astimezone(ZoneInfo(time_zone))
        if local.date().isoformat() > day:
            return found
        found.append(local.strftime("%H:%M%z"))


class TestChangesOfClocks:
    def test_what_is_left_out_is_due_at_the_first_moment_after_it(self) -> None:
        assert day_of("Europe/Berlin", "31 2 * * *", "2026-03-29") == ["03:00+0200"]
        assert day_of("America/New_York", "31 2 * * *", "2026-03-08") == ["03:00-0400"]
        assert day_of("Australia/Lord_Howe", "15 2 * * *", "2026-10-04") == ["02:30+1100"]
        assert day_of("America/Sao_Paulo", "0 0 * * *", "2018-11-04") == ["01:00-0200"]
        assert day_of("Pacific/Apia", "0 12 30 12 *", "2011-12-31") == ["00:00+1400"]

    def test_what_comes_twice_is_due_once(self) -> None:
        assert day_of("Europe/Berlin", "31 2 * * *", "2026-10-25") == ["02:31+0200"]
        assert day_of("America/New_York", "31 1 * * *", "2026-11-01") == ["01:31-0400"]
        assert day_of("Australia/Lord_Howe", "45 1 * * *", "2026-04-05") == ["01:45+1100"]
        assert day_of("America/Sao_Paulo", "30 23 * * *", "2018-02-17") == ["23:30-0200"]

    def test_every_quarter_of_an_hour_of_the_clocks_once(self) -> None:
        autumn = day_of("Europe/Berlin", "*/15 2-3 * * *", "2026-10-25")
        assert autumn[:5] == ["02:00+0200", "02:15+0200", "02:30+0200", "02:45+0200", "03:00+0100"]
        spring = day_of("Europe/Berlin", "*/15 1-3 * * *", "2026-03-29")
        assert spring[3:6] == ["01:45+0100", "03:00+0200", "03:15+0200"]

    def test_where_clocks_are_not_changed(self) -> None:
        assert day_of("Asia/Kathmandu", "30 2 * * *", "2026-03-29") == ["02:30+0545"]
        assert day_of("UTC", "31 2 * * *", "2026-03-29") == ["02:31+0000"]

    @pytest.mark.parametrize("fields", FIELDS)
    @pytest.mark.parametrize(("time_zone", "day"), CHANGES)
    def test_a_chain_of_due_times_is_the_model(self, time_zone: str, day: str, fields: str) -> None:
        due = expected(fields, time_zone, day)
        chain = [next_due(fields, shown(time_zone, day)[0][0], time_zone)]
        while chain[-1] < due[-1]:
            chain.append(next_due(fields, chain[-1], time_zone))
        assert chain == due


@settings(max_examples=300, deadline=None)
@given(
    change=st.sampled_from(CHANGES),
    fields=st.sampled_from(FIELDS),
    looked=st.timedeltas(timedelta(days=2), timedelta(days=4)),
    pause=st.timedeltas(timedelta(), timedelta(days=1)),
)
def test_after_a_pause_the_latest_missed_time_and_the_next_one(
    change: tuple[str, str], fields: str, looked: timedelta, pause: timedelta
) -> None:
    time_zone, day = change
    due = expected(fields, time_zone, day)
    start = shown(time_zone, day)[0][0] + looked
    since = next_due(fields, start, time_zone)
    assert since == min(time for time in due if time > start)
    now = since + pause
    if now >= due[-1]:
        now = since
    latest, following = due_times(fields, since, now, time_zone)
    assert latest == max(time for time in due if time <= now)
    assert following == next_due(fields, now, time_zone)
    assert (latest, following) in {*pairwise([*due, next_due(fields, due[-1], time_zone)])}


@given(st.datetimes(datetime(2025, 1, 1), datetime(2045, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001  Hypothesis adds the zone
def test_a_leap_day_begins_with_the_zone(after: datetime) -> None:
    due = next_due("0 0 29 2 *", after, "Asia/Kathmandu")
    assert due.isoformat()[5:] == "02-28T18:15:00+00:00"
    assert due.year % 4 == 0
    assert after < due < after + timedelta(days=4 * 366)


@pytest.mark.parametrize("fields", ["0 0 30 2 *", "0 0 31 4,6 *", "0 25 * * *", "61 * * * *"])
@pytest.mark.parametrize("time_zone", ["UTC", "Europe/Berlin"])
def test_what_never_comes(fields: str, time_zone: str) -> None:
    with pytest.raises(NeverDue):
        next_due(fields, datetime(2026, 1, 2, tzinfo=UTC), time_zone)
