import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.errors import AlreadyExists, InvalidReference, InvalidRequest, InvalidTransition
from bus.kit.ids import uuid7
from contracts.health import test_runs as runs
from fleetbus.client import Bus
from tests.health.arrange import a_definition, a_run, later, scalar
from tests.kit.outbox import Outbox
from tests.kit.sweeping import Sweep


async def start(bus: Bus, **fields: Any) -> runs.TestRun:
    return await bus.call(runs.StartTestRun(test_definition_id="homepage", **fields))


class TestStartTestRun:
    async def test_started(self, bus: Bus, outbox: Outbox) -> None:
        await a_definition(bus, expected_status=204, timeout_seconds=60)
        run = await start(bus, triggered_by="webhook", session_id=uuid7(), ordinal=3)
        assert (run.status, run.triggered_by, run.environment) == (
            "running",
            "webhook",
            "production",
        )
        assert run.timeout_at - run.started_at == timedelta(seconds=60)
        assert (run.expected_status, run.completed_at, run.ordinal) == (204, None, 3)
        assert await bus.call(runs.GetTestRun(id=run.id)) == run
        assert await outbox.data("test_run.started") == [{"test_run": run.model_dump(mode="json")}]

    async def test_place_in_a_session_is_taken_once(self, bus: Bus) -> None:
        await a_definition(bus)
        session = uuid7()
        await start(bus, session_id=session, ordinal=1)
        with pytest.raises(AlreadyExists) as refused:
            await start(bus, session_id=session, ordinal=1)
        assert refused.value.fields == "session_id and ordinal"


class TestFinishTestRun:
    async def finish(self, bus: Bus, run: runs.TestRun, **fields: Any) -> runs.TestRun:
        return await bus.call(runs.FinishTestRun(**{"id": run.id, "status": "success", **fields}))

    async def test_finished(self, bus: Bus, outbox: Outbox) -> None:
        await a_definition(bus)
        run = await start(bus)
        done = await self.finish(bus, run, result={"status_code": 200}, metrics={"kb": 3})
        assert (done.version, done.status, done.metrics) == (2, "success", {"kb": 3})
        assert done.completed_at == done.updated_at
        assert done.duration_ms is not None
        assert await outbox.data("test_run.finished") == [
            {"test_run": done.model_dump(mode="json")}
        ]

    @pytest.mark.parametrize("status", ["success", "failure", "skipped", "timeout"])
    async def test_once(self, bus: Bus, status: Any) -> None:
        await a_definition(bus)
        run = await start(bus)
        await self.finish(bus, run, status=status)
        with pytest.raises(InvalidTransition) as refused:
            await self.finish(bus, run)
        assert refused.value.from_ == status

    async def test_success_that_met_another_status(self, bus: Bus) -> None:
        await a_definition(bus, expected_status=201)
        run = await start(bus)
        with pytest.raises(runs.ResultContradictsExpectation) as refused:
            await self.finish(bus, run, result={"status_code": 200})
        assert (refused.value.status_code, refused.value.expected_status) == (200, 201)
        failed = await self.finish(bus, run, status="failure", result={"status_code": 200})
        assert failed.status == "failure"


class TestRecordTestRun:
    async def test_recorded(self, bus: Bus, outbox: Outbox) -> None:
        await a_definition(bus)
        at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        run = await a_run(bus, "failure", duration_ms=1500, completed_at=at, error_message="no")
        assert (run.completed_at, run.started_at) == (at, at - timedelta(milliseconds=1500))
        assert (run.status, run.error_message, run.version) == ("failure", "no", 1)
        assert (await outbox.types())[1:] == ["test_run.finished"]

    async def test_refused(self, bus: Bus) -> None:
        with pytest.raises(InvalidReference):
            await a_run(bus)
        await a_definition(bus)
        with pytest.raises(runs.ResultContradictsExpectation):
            await a_run(bus, result={"status_code": 500})
        id_ = (await a_run(bus)).id
        with pytest.raises(AlreadyExists):
            await a_run(bus, id=id_)

    async def test_many_in_flight_share_transactions(self, bus: Bus, db: AsyncConnection) -> None:
        await a_definition(bus)
        waiting = asyncio.Semaphore(64)

        async def one(number: int) -> None:
            async with waiting:
                await a_run(bus, "success" if number % 3 else "failure")

        await asyncio.gather(*(one(number) for number in range(640)))
        query = "SELECT count(DISTINCT xid) FROM bus.outbox WHERE type = 'test_run.finished'"
        assert await scalar(db, query) < 200
        assert await scalar(db, "SELECT count(*) FROM health.test_runs") == 640


class TestRecordManyTestRuns:
    async def test_recorded(self, bus: Bus, outbox: Outbox) -> None:
        await a_definition(bus)
        await a_definition(bus, "other")
        session = uuid7()
        items = [
            runs.RecordedItem(test_definition_id=name, status="success", ordinal=number)
            for number, name in enumerate(["homepage", "other"])
        ]
        recorded = await bus.call(runs.RecordManyTestRuns(session_id=session, items=items))
        assert [item.test_definition_id for item in recorded.items] == ["homepage", "other"]
        stored = await bus.call(runs.GetTestRun(id=recorded.items[1].id))
        assert (stored.session_id, stored.ordinal) == (session, 1)
        assert (await outbox.types()).count("test_run.finished") == 2

    async def test_with_ids_of_the_callers(self, bus: Bus) -> None:
        await a_definition(bus)
        item = runs.RecordedItem(id=uuid7(), test_definition_id="homepage", status="success")
        items = [item, item.model_copy(update={"id": None})]

        recorded = await bus.call(runs.RecordManyTestRuns(session_id=uuid7(), items=items))

        assert recorded.items[0].id == item.id != recorded.items[1].id
        with pytest.raises(AlreadyExists):
            await bus.call(runs.RecordManyTestRuns(session_id=uuid7(), items=[item]))

    async def test_five_hundred_in_a_few_statements(self, bus: Bus, statements: Any) -> None:
        await a_definition(bus)
        item = runs.RecordedItem(test_definition_id="homepage", status="success")
        with statements() as counted:
            await bus.call(runs.RecordManyTestRuns(session_id=uuid7(), items=[item] * 500))
        assert counted.total <= 6

    async def test_all_or_nothing(self, bus: Bus, db: AsyncConnection) -> None:
        await a_definition(bus)
        good = {"test_definition_id": "homepage", "status": "success"}
        for wrong, error in (
            ({"test_definition_id": "nobody"}, InvalidReference),
            ({"result": {"status_code": 500}}, runs.ResultContradictsExpectation),
        ):
            items = [runs.RecordedItem(**good), runs.RecordedItem(**{**good, **wrong})]  # type: ignore[arg-type]  # made of parts
            with pytest.raises(error):
                await bus.call(runs.RecordManyTestRuns(session_id=uuid7(), items=items))
        twice = [runs.RecordedItem(**good, ordinal=1)] * 2  # type: ignore[arg-type]  # made of parts
        with pytest.raises(AlreadyExists):
            await bus.call(runs.RecordManyTestRuns(session_id=uuid7(), items=twice))
        assert await scalar(db, "SELECT count(*) FROM health.test_runs") == 0

    async def test_bounded(self, bus: Bus) -> None:
        item = runs.RecordedItem(test_definition_id="homepage", status="success")
        request = runs.RecordManyTestRuns.model_construct(
            {"session_id", "items"}, session_id=uuid7(), items=[item] * 501
        )
        with pytest.raises(InvalidRequest):
            await bus.call(request)


class TestListTestRuns:
    async def test_filters(self, bus: Bus, statements: Any) -> None:
        await a_definition(bus)
        await a_definition(bus, "other")
        session = uuid7()
        old = datetime.now(UTC) - timedelta(days=1)
        one = await a_run(bus, session_id=session)
        two = await a_run(bus, "failure", test_definition_id="other")
        three = await a_run(bus, completed_at=old)

        async def found(**filters: Any) -> list[Any]:
            with statements() as counted:
                page = await bus.call(runs.ListTestRuns(**filters))
            assert counted.total == 1
            return [run.id for run in page.items]

        assert await found() == [two.id, one.id, three.id]
        assert await found(order="started_at") == [three.id, one.id, two.id]
        assert await found(session_id=session) == [one.id]
        assert await found(test_definition_id="other") == [two.id]
        assert await found(status="failure") == [two.id]
        assert await found(since=old + timedelta(hours=1)) == [two.id, one.id]

    async def test_pages(self, bus: Bus) -> None:
        await a_definition(bus)
        made = [(await a_run(bus)).id for _ in range(5)]
        found = []
        cursor = None
        while True:
            page = await bus.call(runs.ListTestRuns(limit=2, cursor=cursor))
            found += [run.id for run in page.items]
            if (cursor := page.next_cursor) is None:
                break
        assert found == made[::-1]


class TestGetLatestTestRuns:
    async def test_the_latest_first(self, bus: Bus) -> None:
        await a_definition(bus)
        await a_definition(bus, "other")
        made = [
            (await a_run(bus, test_definition_id=name)).id
            for name in ("homepage", "other", "homepage")
        ]
        latest = await bus.call(runs.GetLatestTestRuns(limit=2))
        assert [run.id for run in latest.items] == made[:0:-1]


class TestExpiry:
    async def test_closed_once_with_timeout(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox, sweep: Sweep
    ) -> None:
        await a_definition(bus)
        run = await start(bus)
        assert await sweep("expire_test_runs") == 0
        await later(db, "test_runs", "timeout_at", timedelta(seconds=301))
        assert await sweep("expire_test_runs") == 1
        assert await sweep("expire_test_runs") == 0
        closed = await bus.call(runs.GetTestRun(id=run.id))
        assert (closed.status, closed.version) == ("timeout", 2)
        assert await outbox.count("test_run.finished") == 1
        with pytest.raises(InvalidTransition):
            await bus.call(runs.FinishTestRun(id=run.id, status="success"))
