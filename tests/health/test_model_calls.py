import asyncio
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.errors import AlreadyExists, InvalidReference
from bus.kit.ids import uuid7
from contracts.health import model_calls
from fleetbus.client import Bus
from tests.health.arrange import a_definition, a_run, definitions, scalar
from tests.kit.outbox import Outbox
from tests.kit.sweeping import Sweep


async def call(bus: Bus, **fields: Any) -> model_calls.ModelCall:
    given = {"model": "small", "provider": "one", "success": True, **fields}
    return await bus.call(model_calls.RecordModelCall(**given))


class TestRecordModelCall:
    async def test_recorded_and_not_told(self, bus: Bus, outbox: Outbox) -> None:
        await a_definition(bus)
        run = await a_run(bus)
        before = await outbox.count()
        made = await call(bus, test_run_id=run.id, prompt="?", cost_usd=Decimal("0.0012"))
        assert (made.test_run_id, made.prompt, made.cost_usd) == (run.id, "?", Decimal("0.0012"))
        assert await outbox.count() == before

    async def test_refused(self, bus: Bus) -> None:
        with pytest.raises(InvalidReference) as refusal:
            await call(bus, test_run_id=uuid7())
        assert (refusal.value.field, refusal.value.entity) == ("test_run_id", "test_run")
        made = await call(bus)
        with pytest.raises(AlreadyExists):
            await call(bus, id=made.id)

    async def test_a_run_that_is_not_there_is_missed_before_anything_is_written(
        self, bus: Bus, statements: Any
    ) -> None:
        with statements() as counted, pytest.raises(InvalidReference):
            await call(bus, test_run_id=uuid7())
        assert counted.total
        assert not [text for text in counted.texts if "INSERT INTO health.model_calls" in text]

    async def test_many_in_flight_share_transactions(self, bus: Bus, db: AsyncConnection) -> None:
        await asyncio.gather(*(call(bus) for _ in range(256)))
        distinct = "SELECT count(DISTINCT xmin::text) FROM health.model_calls"
        assert await scalar(db, distinct) < 100


class TestListModelCalls:
    async def test_of_a_run(self, bus: Bus) -> None:
        await a_definition(bus)
        run = await a_run(bus)
        other = await call(bus)
        own = await call(bus, test_run_id=run.id, metadata={"a": 1})
        page = await bus.call(model_calls.ListModelCalls(test_run_id=run.id))
        assert page.items == [own]
        page = await bus.call(model_calls.ListModelCalls())
        assert page.items == [other, own]


class TestGetModelUsage:
    async def test_successes_per_model_and_provider(
        self, bus: Bus, statements: Any, db: AsyncConnection, sweep: Sweep
    ) -> None:
        await call(bus, tokens=10, cost_usd=Decimal("0.1"), latency_ms=100)
        await call(bus, tokens=20, cost_usd=Decimal("0.2"), latency_ms=200)
        await call(bus, tokens=5)
        await call(bus, success=False, tokens=1000, cost_usd=Decimal(9))
        await call(bus, provider="two")
        with statements() as counted:
            usage = await bus.call(model_calls.GetModelUsage(days=1))
        assert counted.total == 2
        one, two = usage.items
        assert (one.provider, one.calls, one.tokens) == ("one", 3, 35)
        assert (one.cost_usd, one.mean_latency_ms) == (Decimal("0.3"), 150.0)
        assert (two.provider, two.calls, two.mean_latency_ms) == ("two", 1, None)

        assert await sweep("merge_tallies") == 1
        assert await scalar(db, "SELECT count(*) FROM health.model_tallies") == 2
        assert await bus.call(model_calls.GetModelUsage(days=1)) == usage


class TestDetached:
    async def test_it_is_kept_when_its_run_goes_and_that_is_told(
        self, bus: Bus, outbox: Outbox
    ) -> None:
        await a_definition(bus)
        run = await a_run(bus)
        made = await call(bus, test_run_id=run.id, prompt="a secret plan")
        other = await call(bus)

        await bus.call(definitions.DeleteTestDefinition(id="homepage"))

        page = await bus.call(model_calls.ListModelCalls())
        found = {one.id: one for one in page.items}
        after = found[made.id]
        gone = {"test_run_id": None, "version": 2, "updated_at": after.updated_at}
        assert after == made.model_copy(update=gone)
        assert after.updated_at > made.updated_at
        assert found[other.id] == other
        [event] = await outbox.data("model_call.detached")
        assert event == {
            "model_call": {"id": str(made.id), "version": 2},
            "test_run_id": str(run.id),
        }
