"""Times by clocks of others: of the year 2031, of the year 1, and late."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.kit.ids import uuid7
from contracts.health import daily_summaries as summaries
from contracts.health import health
from contracts.health import test_runs as runs
from contracts.health.test_definitions import TestDefinition as Definition
from contracts.planning import projects
from fleetbus.client import Bus
from fleetbus.server import migrate
from fleetbus.server.service import Service
from handlers.health.test_runs import record_test_run
from handlers.planning.projects import record_project_fetch
from tests.health.arrange import a_definition, a_run
from tests.kit.outbox import Outbox

FAR = datetime(2031, 1, 1, tzinfo=UTC)
FIRST = datetime.min.replace(tzinfo=UTC)
LAST = datetime.max.replace(tzinfo=UTC)
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

TIMES = st.datetimes(timezones=st.just(UTC)) | st.sampled_from([FIRST, LAST, NOW, FAR])


async def last_three(bus: Bus) -> health.HealthStatus:
    return await bus.call(health.GetHealthStatus(window=health.LastRuns(last=3)))


async def test_runs_of_the_future_do_not_hide_what_fails_now(bus: Bus) -> None:
    await a_definition(bus)
    for _ in range(3):
        await a_run(bus, "success", completed_at=FAR)
    for _ in range(5):
        await a_run(bus, "failure")
    status = await last_three(bus)
    assert (status.status, status.passed, status.failed) == ("unhealthy", 0, 3)


async def test_a_time_ahead_is_now_and_its_duration_counts_back_from_there(bus: Bus) -> None:
    await a_definition(bus)
    run = await a_run(bus, completed_at=LAST, duration_ms=1_500)
    assert run.completed_at == run.created_at
    assert run.started_at == run.created_at - timedelta(milliseconds=1_500)


async def test_many_runs_of_the_future(bus: Bus) -> None:
    await a_definition(bus)
    item = runs.RecordedItem(test_definition_id="homepage", status="success", completed_at=FAR)
    await bus.call(runs.RecordManyTestRuns(session_id=uuid7(), items=[item] * 3))
    await a_run(bus, "failure")
    status = await last_three(bus)
    assert (status.passed, status.failed) == (2, 1)
    page = await bus.call(runs.ListTestRuns())
    assert page.items[0].status == "failure"


async def test_reports_that_come_late_stand_behind_later_ones(bus: Bus) -> None:
    await a_definition(bus)
    for _ in range(3):
        await a_run(bus, "failure")
    for _ in range(3):
        await a_run(bus, "success", completed_at=NOW)
    assert (await last_three(bus)).failed == 3


async def test_the_first_moment_there_is(bus: Bus) -> None:
    await a_definition(bus)
    run = await a_run(bus, completed_at=FIRST, duration_ms=2**31 - 1)
    assert run.started_at == run.completed_at == FIRST
    assert (await bus.call(runs.ListTestRuns())).items == [run]
    assert await bus.call(runs.GetTestRun(id=run.id)) == run


@pytest.mark.parametrize("since", [FIRST, LAST, LAST.replace(minute=0, second=0, microsecond=0)])
async def test_health_since_any_time(bus: Bus, since: datetime) -> None:
    await a_definition(bus)
    await a_run(bus)
    status = await bus.call(health.GetHealthStatus(window=health.RunsSince(since=since)))
    assert status.total == (1 if since == FIRST else 0)


class TestDays:
    async def test_a_day_ahead_has_no_summary(self, bus: Bus, outbox: Outbox) -> None:
        for day in (date(2031, 1, 1), date.max):
            with pytest.raises(summaries.DayNotBegun, match=f"{day} has not begun yet in UTC"):
                await bus.call(
                    summaries.UpsertDailySummary(
                        day=day, overall_status="healthy", total=1, passed=1, failed=0
                    )
                )
            with pytest.raises(summaries.DayNotBegun):
                await bus.call(summaries.ComputeDailySummary(day=day))
        assert await outbox.types() == []

    async def test_the_first_day_there_is(self, bus: Bus) -> None:
        with pytest.raises(summaries.NoRunsOfDay):
            await bus.call(summaries.ComputeDailySummary(day=date.min))
        with pytest.raises(summaries.DailySummaryNotFound):
            await bus.call(summaries.GetDailySummary(day=date.max))

    async def test_today_is_summed_up(self, bus: Bus, db: AsyncConnection) -> None:
        await a_definition(bus)
        await a_run(bus)
        today = (await db.execute(text("SELECT (now() AT TIME ZONE 'UTC')::date"))).scalar_one()
        made = await bus.call(summaries.ComputeDailySummary(day=today))
        shown = await bus.call(health.GetDashboard(days=1))
        assert shown.latest_summary == made


class TestFetches:
    async def test_a_fetch_of_the_future_is_one_of_now(self, bus: Bus) -> None:
        project = await bus.call(projects.CreateProject(name="a", url="https://a.example"))
        fetch = projects.RecordProjectFetch(id=project.id, fetched_at=FAR)
        first = await bus.call(fetch)
        assert first.last_fetched_at == first.updated_at
        second = await bus.call(fetch)
        assert second.last_fetched_at == second.updated_at > first.updated_at
        late = projects.RecordProjectFetch(id=project.id, fetched_at=first.updated_at)
        assert await bus.call(late) == second


@given(reports=st.lists(st.tuples(TIMES, st.integers(0, 2**31 - 1)), min_size=1, max_size=8))
def test_no_report_stands_after_its_arrival(reports: Sequence[tuple[datetime, int]]) -> None:
    definition: Any = Definition.trusted(
        dict.fromkeys(Definition.model_fields)
        | {"id": "a", "expected_status": 200, "timeout_seconds": 300}
    )
    for number, (time, duration) in enumerate(reports):
        now = NOW + timedelta(seconds=number)
        command = runs.RecordTestRun(
            test_definition_id="a", status="success", completed_at=time, duration_ms=duration
        )
        run = record_test_run(command, definition, new_id=uuid7(), now=now).entity
        assert run.completed_at == min(time, now)
        assert FIRST <= run.started_at <= run.completed_at


@given(times=st.lists(TIMES, min_size=1, max_size=8))
def test_the_last_fetch_is_the_latest_that_can_have_been(times: Sequence[datetime]) -> None:
    project: Any = projects.Project.trusted(
        dict.fromkeys(projects.Project.model_fields) | {"id": uuid7(), "version": 1}
    )
    latest: datetime | None = None
    for number, time in enumerate(times):
        now = NOW + timedelta(seconds=number)
        command = projects.RecordProjectFetch(id=project.id, fetched_at=time)
        decision = record_project_fetch(command, project, now=now)
        latest = max(latest or FIRST, min(time, now))
        project = decision.entity
        assert project.last_fetched_at == latest
        assert bool(decision.events) == (project.updated_at == now)


async def test_times_ahead_from_before_are_put_right(
    service: Service, bus: Bus, db: AsyncConnection, database_url: str
) -> None:
    await a_definition(bus)
    await a_run(bus, "success", duration_ms=1_000)
    project = await bus.call(projects.CreateProject(name="a", url="https://a.example"))
    await bus.call(projects.RecordProjectFetch(id=project.id, fetched_at=NOW))
    revision = "0009"
    await migrate.downgrade(database_url, revision)
    for statement in (
        "UPDATE health.test_runs SET started_at = '2031-01-01Z', completed_at = '2031-01-01Z'",
        "UPDATE planning.projects SET last_fetched_at = '2031-01-01Z'",
    ):
        await db.execute(text(statement))
    await migrate.upgrade(database_url)
    await a_run(bus, "failure")
    [newest, oldest] = (await bus.call(runs.ListTestRuns())).items
    assert (newest.status, oldest.status) == ("failure", "success")
    assert oldest.completed_at == oldest.started_at + timedelta(seconds=1) == oldest.created_at
    fetched = await bus.call(projects.GetProject(id=project.id))
    assert fetched.last_fetched_at == fetched.updated_at
    shown = await bus.call(health.GetDashboard(days=1))
    assert (shown.last_24_hours.success, shown.last_24_hours.failure) == (1, 1)
