from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.health import daily_summaries
from contracts.health.health import GetDashboard, GetHealthStatus, LastRuns, RunsSince
from contracts.health.model_calls import RecordModelCall
from contracts.health.test_runs import StartTestRun
from fleetbus.client import Bus
from tests.health.arrange import a_definition, a_run, scalar
from tests.kit.sweeping import Sweep

HOUR = timedelta(hours=1)


class TestGetHealthStatus:
    async def status(self, bus: Bus, window: Any = None) -> tuple[str, int, int, int]:
        found = await bus.call(GetHealthStatus(window=window or LastRuns(last=100)))
        return found.status, found.total, found.passed, found.failed

    async def test_no_runs_are_unknown(self, bus: Bus) -> None:
        assert await self.status(bus) == ("unknown", 0, 0, 0)
        await a_definition(bus)
        await a_run(bus, "skipped")
        await bus.call(StartTestRun(test_definition_id="homepage"))
        assert await self.status(bus) == ("unknown", 0, 0, 0)
        since = RunsSince(since=datetime.now(UTC) - HOUR)
        assert await self.status(bus, since) == ("unknown", 0, 0, 0)

    @pytest.mark.parametrize(
        ("statuses", "expected"),
        [
            ("success success", ("healthy", 2, 2, 0)),
            ("success success failure", ("degraded", 3, 2, 1)),
            ("success timeout", ("unhealthy", 2, 1, 1)),
            ("failure", ("unhealthy", 1, 0, 1)),
        ],
    )
    async def test_by_how_many_failed(self, bus: Bus, statuses: str, expected: Any) -> None:
        await a_definition(bus)
        for status in statuses.split():
            await a_run(bus, status)
        assert await self.status(bus) == expected
        assert await self.status(bus, RunsSince(since=datetime.now(UTC) - HOUR)) == expected

    async def test_only_the_last(self, bus: Bus, statements: Any) -> None:
        await a_definition(bus)
        await a_run(bus, "failure")
        await a_run(bus)
        with statements() as counted:
            assert await self.status(bus, LastRuns(last=1)) == ("healthy", 1, 1, 0)
        assert counted.total == 1

    async def test_since_counts_to_the_second(self, bus: Bus) -> None:
        await a_definition(bus)
        at = datetime(2026, 1, 2, 3, 30, tzinfo=UTC)
        for offset in (-7200, -1801, -1, 0, 1, 1800, 9000):
            await a_run(bus, completed_at=at + timedelta(seconds=offset))
        for since, expected in ((at, 4), (at - timedelta(seconds=1), 5), (at - HOUR, 6)):
            _, total, _, _ = await self.status(bus, RunsSince(since=since))
            assert total == expected


class TestGetDashboard:
    async def test_everything_in_one_round_trip(self, bus: Bus, statements: Any) -> None:
        await a_definition(bus)
        await a_run(bus)
        await a_run(bus, "failure")
        await a_run(bus, completed_at=datetime.now(UTC) - timedelta(days=2))
        await bus.call(RecordModelCall(model="m", provider="p", success=True, latency_ms=10))
        summary = await bus.call(
            daily_summaries.UpsertDailySummary(
                day=datetime(2026, 1, 2, tzinfo=UTC).date(),
                overall_status="healthy",
                total=1,
                passed=1,
                failed=0,
            )
        )
        with statements() as counted:
            board = await bus.call(GetDashboard(days=4))
        assert counted.total == 2, "the clock, and one statement"
        assert board.latest_summary == summary
        assert (board.last_24_hours.success, board.last_24_hours.failure) == (1, 1)
        assert [(u.model, u.calls, u.mean_latency_ms) for u in board.usage] == [("m", 1, 10.0)]
        assert [day.runs.success for day in board.trend] == [0, 1, 0, 1]
        assert board.trend[-1].day - board.trend[0].day == timedelta(days=3)

    async def test_empty(self, bus: Bus) -> None:
        board = await bus.call(GetDashboard(days=1))
        assert (board.latest_summary, board.usage, len(board.trend)) == (None, [], 1)


COUNTED = """
    SELECT count(*) FROM (
        SELECT date_trunc('hour', started_at, 'UTC') AS hour, status, count(*) AS runs
        FROM health.test_runs GROUP BY 1, 2
    ) AS real FULL JOIN (
        SELECT hour, status, sum(runs) AS runs FROM health.run_tallies
        GROUP BY 1, 2 HAVING sum(runs) <> 0
    ) AS tallied USING (hour, status) WHERE real.runs IS DISTINCT FROM tallied.runs
"""


class TestTallies:
    async def test_exact_whatever_happens_to_runs(
        self, bus: Bus, db: AsyncConnection, sweep: Sweep
    ) -> None:
        await a_definition(bus)
        await a_definition(bus, "other")
        for number in range(12):
            name = "other" if number % 2 else "homepage"
            at = datetime.now(UTC) - number * HOUR / 3
            await a_run(bus, "failure", test_definition_id=name, completed_at=at)
        await db.execute(
            text("UPDATE health.test_runs SET status = 'success' WHERE random() < 0.5")
        )
        await db.execute(text("DELETE FROM health.test_definitions WHERE id = 'other'"))
        assert await scalar(db, COUNTED) == 0
        before = await scalar(db, "SELECT count(*) FROM health.run_tallies")
        assert await sweep("merge_tallies") > 0
        assert await sweep("merge_tallies") == 0
        assert await scalar(db, "SELECT count(*) FROM health.run_tallies") < before
        assert await scalar(db, COUNTED) == 0
