from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from contracts.health import daily_summaries as summaries
from contracts.health.model_calls import RecordModelCall
from fleetbus.client import Bus
from tests.health.arrange import a_definition, a_run
from tests.kit.outbox import Outbox

DAY = date(2026, 1, 2)
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


async def upsert(bus: Bus, day: date = DAY, total: int = 3) -> summaries.DailySummary:
    return await bus.call(
        summaries.UpsertDailySummary(
            day=day, overall_status="degraded", total=total, passed=2, failed=1, issues=["slow"]
        )
    )


class TestUpsertDailySummary:
    async def test_one_row_a_day(self, bus: Bus, outbox: Outbox) -> None:
        made = await upsert(bus)
        assert await upsert(bus) == made
        changed = await upsert(bus, total=4)
        assert (changed.id, changed.version, changed.total) == (made.id, 2, 4)
        assert await outbox.types() == ["daily_summary.changed"] * 2


class TestGetDailySummary:
    async def test_by_day(self, bus: Bus) -> None:
        made = await upsert(bus)
        assert await bus.call(summaries.GetDailySummary(day=DAY)) == made


class TestListDailySummaries:
    async def test_latest_first_in_pages(self, bus: Bus) -> None:
        for number in (1, 3, 2):
            await upsert(bus, date(2026, 1, number))
        first = await bus.call(summaries.ListDailySummaries(limit=2))
        second = await bus.call(summaries.ListDailySummaries(limit=2, cursor=first.next_cursor))
        days = [one.day.day for one in (*first.items, *second.items)]
        assert days == [3, 2, 1]


class TestComputeDailySummary:
    async def test_from_the_runs_of_the_day(self, bus: Bus) -> None:
        await a_definition(bus)
        for status, took in (("success", 100), ("success", 300), ("timeout", 200), ("skipped", 1)):
            await a_run(bus, status, duration_ms=took, completed_at=NOON)
        await a_run(bus, "failure")
        await upsert(bus)
        computed = await bus.call(summaries.ComputeDailySummary(day=DAY))
        assert (computed.total, computed.passed, computed.failed, computed.skipped) == (3, 2, 1, 1)
        assert (computed.overall_status, computed.mean_latency_ms) == ("degraded", 200.0)
        assert (computed.issues, computed.version) == (["slow"], 2)

    async def test_calls_to_models(self, bus: Bus) -> None:
        await a_definition(bus)
        run = await a_run(bus)
        await bus.call(
            RecordModelCall(model="m", provider="p", success=False, cost_usd=Decimal("0.5"))
        )
        computed = await bus.call(summaries.ComputeDailySummary(day=run.started_at.date()))
        assert (computed.model_calls, computed.cost_usd) == (1, Decimal("0.5"))
        assert (computed.overall_status, computed.issues) == ("healthy", None)

    async def test_a_day_without_runs_is_not_healthy(self, bus: Bus) -> None:
        with pytest.raises(summaries.NoRunsOfDay, match="no test run of 2026-01-02"):
            await bus.call(summaries.ComputeDailySummary(day=DAY))
