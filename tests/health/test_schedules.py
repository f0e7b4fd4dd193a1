from datetime import UTC, datetime

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.errors import InvalidRequest
from contracts.health import schedules
from contracts.health.checks import WorkerFilters
from contracts.health.schedules import InvalidSchedule
from fleetbus.client import Bus
from tests.health.arrange import YEAR, YEARLY, a_schedule, later
from tests.kit.outbox import Outbox
from tests.kit.sweeping import Sweep


class TestUpsertSchedule:
    async def test_made_and_replaced(self, bus: Bus, outbox: Outbox) -> None:
        made = await a_schedule(bus, worker_filters=WorkerFilters(types=["builder"]))
        assert (made.version, made.timeout_minutes, made.include_unit) == (1, 30, True)
        assert made.worker_filters == WorkerFilters(types=["builder"])
        assert made.next_due_at is not None
        assert (await a_schedule(bus, worker_filters=WorkerFilters(types=["builder"]))) == made
        changed = await a_schedule(bus, cron="0 3 * * *", include_unit=False)
        assert (changed.id, changed.version, changed.include_unit) == (made.id, 2, False)
        assert changed.worker_filters is None
        assert changed.next_due_at is not None
        assert changed.next_due_at.hour == 3
        assert await outbox.types() == ["schedule.changed", "schedule.changed"]

    async def test_local_times_of_a_time_zone(self, bus: Bus, outbox: Outbox) -> None:
        in_utc = await a_schedule(bus, cron="0 3 * * *")
        assert in_utc.time_zone == "UTC"
        there = await a_schedule(bus, cron="0 3 * * *", time_zone="Asia/Kathmandu")
        assert (there.version, there.time_zone) == (2, "Asia/Kathmandu")
        assert there.next_due_at is not None
        assert there.next_due_at.strftime("%H:%M") == "21:15"
        assert await bus.call(schedules.GetSchedule(name="nightly")) == there
        again = await a_schedule(bus, cron="0 3 * * *", time_zone="Asia/Kathmandu")
        assert again == there
        told_zones = [data["schedule"]["time_zone"] for data in await outbox.data()]
        assert told_zones == ["UTC", "Asia/Kathmandu"]

    async def test_a_dry_run_says_when_and_keeps_nothing(self, bus: Bus, outbox: Outbox) -> None:
        made = await a_schedule(bus, cron="0 3 * * *")
        command = schedules.UpsertSchedule(
            name="nightly", cron="0 3 * * *", time_zone="Asia/Kathmandu"
        )
        tried = await bus.call(command, dry_run=True)
        assert tried.next_due_at is not None
        assert tried.next_due_at.strftime("%H:%M") == "21:15"
        assert await bus.call(schedules.GetSchedule(name="nightly")) == made
        assert await outbox.count() == 1

    @pytest.mark.parametrize(
        "name", ["Europe/Atlantis", "europe/berlin", "localtime", "right/UTC", "Europe", "+01:00"]
    )
    async def test_an_unknown_time_zone(self, bus: Bus, outbox: Outbox, name: str) -> None:
        unchecked = schedules.UpsertSchedule.model_construct(
            name="nightly", cron="0 3 * * *", time_zone=name
        )
        with pytest.raises(InvalidRequest, match="must be a name of the IANA") as refused:
            await bus.call(unchecked)
        assert [error.field for error in refused.value.errors] == ["time_zone"]
        assert await outbox.all() == []

    async def test_impossible(self, bus: Bus) -> None:
        with pytest.raises(InvalidSchedule):
            await a_schedule(bus, cron="0 25 * * *")
        with pytest.raises(InvalidSchedule, match="Bad day-of-month"):
            await a_schedule(bus, cron="0 0 31 4 *", time_zone="Europe/Berlin")


class TestGetSchedule:
    async def test_by_name(self, bus: Bus) -> None:
        made = await a_schedule(bus)
        assert await bus.call(schedules.GetSchedule(name="nightly")) == made


class TestListSchedules:
    async def test_enabled_or_not(self, bus: Bus) -> None:
        await a_schedule(bus, "b")
        await a_schedule(bus, "a", enabled=False)
        page = await bus.call(schedules.ListSchedules(order="name"))
        assert [one.name for one in page.items] == ["a", "b"]
        page = await bus.call(schedules.ListSchedules(enabled=True))
        assert [one.name for one in page.items] == ["b"]


class TestDeleteSchedule:
    async def test_deleted(self, bus: Bus, outbox: Outbox) -> None:
        made = await a_schedule(bus)
        deletion = await bus.call(schedules.DeleteSchedule(name="nightly"))
        assert (deletion.id, deletion.name) == (made.id, "nightly")
        assert (await outbox.types())[-1] == "schedule.deleted"


class TestTriggerSchedule:
    async def test_due_now_and_its_own_times_stay(self, bus: Bus, outbox: Outbox) -> None:
        made = await a_schedule(bus, enabled=False)
        triggered = await bus.call(schedules.TriggerSchedule(name="nightly"))
        assert (triggered.next_due_at, triggered.version) == (made.next_due_at, 2)
        [due] = await outbox.data("schedule.due")
        assert due["trigger"] == "on_demand"
        assert datetime.fromisoformat(due["due_at"]) == triggered.last_due_at


class TestDue:
    async def test_by_the_clocks_of_its_time_zone(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox, sweep: Sweep
    ) -> None:
        await a_schedule(bus, cron=YEARLY, time_zone="Asia/Kathmandu")
        await later(db, "schedules", "next_due_at", 4 * YEAR)
        assert await sweep("tell_due_schedules") == 1
        [due] = await outbox.data("schedule.due")
        assert due["due_at"][4:] == "-12-31T18:15:00Z"
        stored = await bus.call(schedules.GetSchedule(name="nightly"))
        assert stored.next_due_at is not None
        assert stored.next_due_at.strftime("%m-%d %H:%M") == "12-31 18:15"
        assert stored.next_due_at > datetime.now(UTC)

    async def test_once_for_each_due_time_and_the_latest_of_missed_ones(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox, sweep: Sweep
    ) -> None:
        await a_schedule(bus, cron=YEARLY)
        await a_schedule(bus, "disabled", cron=YEARLY, enabled=False)
        for years in (1, 4):
            await later(db, "schedules", "next_due_at", years * YEAR)
            assert await sweep("tell_due_schedules") == 1
            assert await sweep("tell_due_schedules") == 0
        due = await outbox.data("schedule.due")
        assert [one["trigger"] for one in due] == ["cron", "cron"]
        stored = await bus.call(schedules.GetSchedule(name="nightly"))
        assert stored.last_due_at == datetime.fromisoformat(due[-1]["due_at"])
        assert stored.next_due_at is not None
        assert stored.next_due_at > datetime.now(UTC)
