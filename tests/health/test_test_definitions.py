import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.errors import InvalidRequest
from contracts.health import test_definitions as definitions
from contracts.health.schedules import InvalidSchedule
from fleetbus.client import Bus
from tests.health.arrange import YEAR, YEARLY, a_definition, a_run, later, scalar
from tests.kit.outbox import Outbox
from tests.kit.sweeping import Sweep

MINUTE = timedelta(minutes=1)


class TestUpsertTestDefinition:
    async def test_made_with_defaults(self, bus: Bus, outbox: Outbox) -> None:
        made = await bus.call(definitions.UpsertTestDefinition(id="a-1", description="x"))
        assert (made.id, made.version, made.category, made.method) == ("a-1", 1, "endpoint", None)
        assert (made.expected_status, made.timeout_seconds, made.retry_attempts) == (200, 300, 3)
        assert (made.enabled, made.schedule, made.next_due_at) == (True, None, None)
        assert await outbox.data() == [{"test_definition": made.model_dump(mode="json")}]
        assert (await outbox.all())[0].entity_id == "a-1"

    async def test_it_is_afterwards_as_the_request_says(self, bus: Bus) -> None:
        await a_definition(bus, payload={"a": 1}, method="PUT", config={"b": [1]})
        changed = await a_definition(bus, payload=None, category="ai")
        assert (changed.version, changed.payload, changed.method) == (2, None, None)
        assert (changed.category, changed.config) == ("ai", None)

    async def test_nothing_changed_tells_nothing(self, bus: Bus, outbox: Outbox) -> None:
        first = await a_definition(bus, schedule="*/5 * * * *", payload={"a": [1, None]})
        assert await a_definition(bus, schedule="*/5 * * * *", payload={"a": [1, None]}) == first
        assert await outbox.types() == ["test_definition.changed"]

    async def test_due_time_of_its_schedule(self, bus: Bus) -> None:
        made = await a_definition(bus, schedule="* * * * *")
        assert made.next_due_at is not None
        assert timedelta() < made.next_due_at - made.created_at <= MINUTE
        assert made.next_due_at.second == made.next_due_at.microsecond == 0
        assert (await a_definition(bus, schedule="* * * * *", enabled=False)).next_due_at is None

    @pytest.mark.parametrize("schedule", ["61 * * * *", "0 0 30 2 *", "x * * * *"])
    async def test_schedule_that_never_comes(self, bus: Bus, schedule: str) -> None:
        with pytest.raises(InvalidSchedule):
            await a_definition(bus, schedule=schedule)

    @pytest.mark.parametrize(
        "wrong", [{"id": "A"}, {"id": "-a"}, {"schedule": "* * * *"}, {"schedule": "@daily"}]
    )
    async def test_malformed(self, bus: Bus, wrong: dict[str, Any]) -> None:
        given = {"id": "a", "description": "x", **wrong}
        request = definitions.UpsertTestDefinition.model_construct(set(given), **given)
        with pytest.raises(InvalidRequest):
            await bus.call(request)

    async def test_many_at_once_make_one(self, bus: Bus, outbox: Outbox) -> None:
        versions = await asyncio.gather(
            *(a_definition(bus, description=f"number {n}") for n in range(20))
        )
        assert sorted(one.version for one in versions) == list(range(1, 21))


class TestGetTestDefinition:
    async def test_found_in_one_statement(self, bus: Bus, statements: Any) -> None:
        made = await a_definition(bus)
        assert await bus.call(definitions.GetTestDefinition(id="homepage")) == made


class TestListTestDefinitions:
    async def test_filters_and_pages(self, bus: Bus, statements: Any) -> None:
        for name in ("a", "b", "c"):
            await a_definition(bus, name, category="unit" if name == "b" else "ai")
        await a_definition(bus, "c", category="ai", enabled=False)
        with statements() as counted:
            first = await bus.call(definitions.ListTestDefinitions(limit=2))
        assert counted.total == 1
        second = await bus.call(definitions.ListTestDefinitions(limit=2, cursor=first.next_cursor))
        assert [one.id for one in (*first.items, *second.items)] == ["a", "b", "c"]
        found = await bus.call(definitions.ListTestDefinitions(category="ai", enabled=True))
        assert [one.id for one in found.items] == ["a"]


class TestDeleteTestDefinition:
    async def test_its_runs_go_along(self, bus: Bus, db: AsyncConnection, outbox: Outbox) -> None:
        await a_definition(bus)
        await a_run(bus)
        await a_run(bus, "failure")
        deletion = await bus.call(definitions.DeleteTestDefinition(id="homepage"))
        assert (deletion.id, deletion.deleted.runs) == ("homepage", 2)
        assert await scalar(db, "SELECT count(*) FROM health.test_runs") == 0
        [deleted] = await outbox.data("test_definition.deleted")
        assert (deleted["test_definition"]["version"], deleted["deleted"]) == (2, {"runs": 2})


class TestDue:
    async def test_once_for_each_due_time(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox, sweep: Sweep
    ) -> None:
        await a_definition(bus, schedule=YEARLY)
        assert await sweep("tell_due_definitions") == 0
        await later(db, "test_definitions", "next_due_at", YEAR)
        assert await sweep("tell_due_definitions") == 1
        assert await sweep("tell_due_definitions") == 0
        [due] = await outbox.data("test_definition.due")
        assert datetime.fromisoformat(due["due_at"]) <= datetime.now(UTC)
        assert due["test_definition"]["version"] == 2

    async def test_the_latest_of_missed_ones(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox, sweep: Sweep
    ) -> None:
        await a_definition(bus, schedule=YEARLY)
        await later(db, "test_definitions", "next_due_at", 4 * YEAR)
        assert await sweep("tell_due_definitions") == 1
        assert await sweep("tell_due_definitions") == 0
        [due] = await outbox.data("test_definition.due")
        now = await scalar(db, "SELECT clock_timestamp()")
        assert now - datetime.fromisoformat(due["due_at"]) < YEAR
