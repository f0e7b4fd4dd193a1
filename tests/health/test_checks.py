import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.errors import AlreadyExists, InvalidRequest, InvalidTransition
from contracts.health import checks
from contracts.health.checks import (
    AlreadyReported,
    CheckedWorker,
    Connectivity,
    NoWorkerMatched,
    SuiteResult,
    WorkerCheckNotFound,
    WorkerFilters,
    WorkerTests,
)
from fleetbus.client import Bus
from fleetbus.server.service import Service
from tests.health.arrange import YEAR, YEARLY, a_check, a_schedule, ids, later, scalar
from tests.kit.outbox import Outbox
from tests.kit.sweeping import Sweep

HOUR = timedelta(hours=1)


async def report(bus: Bus, id_: Any, status: Any = "healthy", **fields: Any) -> checks.WorkerCheck:
    return await bus.call(
        checks.ReportWorkerCheck(worker_check_id=id_, overall_status=status, **fields)
    )


async def get(bus: Bus, started: checks.StartedCheck) -> checks.CheckDetails:
    return await bus.call(checks.GetCheck(id=started.check.id))


class TestStartCheck:
    async def test_workers_that_are_named(self, bus: Bus, outbox: Outbox) -> None:
        started = await a_check(bus, "a", "b", timeout_minutes=5, include_unit=False)
        check = started.check
        assert (check.status, check.workers_total, check.workers_completed) == ("running", 2, 0)
        assert (check.include_unit, check.include_performance) == (False, True)
        assert check.timeout_at - check.started_at == timedelta(minutes=5)
        assert [worker.worker_name for worker in started.workers] == ["a", "b"]
        details = await get(bus, started)
        assert details.check == check
        assert {worker.status for worker in details.workers} == {"pending"}
        assert await outbox.data() == [started.model_dump(mode="json")]
        assert await outbox.types() == ["check.started"]

    async def test_known_workers_by_filter(self, bus: Bus) -> None:
        await a_check(bus, "a", "b")
        renamed = [CheckedWorker(name="b", type="tester", url="http://b")]
        await bus.call(checks.StartCheck(trigger_type="cron", workers=renamed))

        async def names(**filters: Any) -> list[str]:
            command = checks.StartCheck(
                trigger_type="cron", worker_filters=WorkerFilters(**filters)
            )
            return [worker.worker_name for worker in (await bus.call(command)).workers]

        assert await names() == ["a", "b"]
        assert await names(types=["tester"]) == ["b"]
        assert await names(names=["a", "zzz"]) == ["a"]

    async def test_nobody_matches(self, bus: Bus, db: AsyncConnection) -> None:
        with pytest.raises(NoWorkerMatched):
            await bus.call(checks.StartCheck(trigger_type="cron", worker_filters=WorkerFilters()))
        assert await scalar(db, "SELECT count(*) FROM health.checks") == 0

    async def test_id_is_taken(self, bus: Bus) -> None:
        started = await a_check(bus, "a")
        with pytest.raises(AlreadyExists):
            await a_check(bus, "a", id=started.check.id)

    @pytest.mark.parametrize(
        "workers",
        [None, [], [CheckedWorker(name="a", type="x"), CheckedWorker(name="a", type="y")]],
    )
    async def test_malformed(self, bus: Bus, workers: Any) -> None:
        given = {"trigger_type": "cron", "workers": workers}
        with pytest.raises(InvalidRequest):
            await bus.call(checks.StartCheck.model_construct(set(given), **given))


class TestReportWorkerCheck:
    async def test_the_last_report_closes_the_check(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        started = await a_check(bus, "a", "b")
        one, two = ids(started)
        tests = WorkerTests(unit=SuiteResult(total=2, passed=2, failed=0))
        reported = await report(
            bus, one, score=1.0, connectivity=Connectivity(database=True), tests=tests
        )
        assert (reported.status, reported.version, reported.tests) == ("completed", 2, tests)
        check = (await get(bus, started)).check
        assert (check.status, check.workers_completed, check.overall_score) == ("running", 1, None)
        await report(bus, two, "degraded", score=0.5, raw={"a": [1]})
        check = (await get(bus, started)).check
        assert (check.status, check.workers_passed, check.overall_score) == ("completed", 2, 0.75)
        assert await outbox.data("check.completed") == [{"check": check.model_dump(mode="json")}]
        query = """
            SELECT count(DISTINCT xid) FROM bus.outbox
            WHERE type = 'check.completed' OR entity_id = CAST(:last AS text)
        """
        assert await scalar(db, query, last=str(two)) == 1

    async def test_not_every_worker_passed(self, bus: Bus) -> None:
        started = await a_check(bus, "a", "b")
        one, two = ids(started)
        assert (await report(bus, one, "critical")).status == "failed"
        await report(bus, two)
        check = (await get(bus, started)).check
        assert (check.status, check.workers_passed, check.workers_failed) == ("failed", 1, 1)
        assert check.overall_score is None

    async def test_a_second_report_is_refused(self, bus: Bus, outbox: Outbox) -> None:
        started = await a_check(bus, "a", "b")
        await report(bus, ids(started)[0], "degraded")
        with pytest.raises(AlreadyReported, match="a has already reported: degraded"):
            await report(bus, ids(started)[0])
        assert (await get(bus, started)).check.workers_completed == 1
        assert await outbox.count("worker_check.reported") == 1

    async def test_one_of_many_at_once_is_taken(self, bus: Bus) -> None:
        started = await a_check(bus, "a", "b")
        one = ids(started)[0]
        answers = await asyncio.gather(
            *(report(bus, one) for _ in range(30)), return_exceptions=True
        )
        assert sum(isinstance(answer, checks.WorkerCheck) for answer in answers) == 1
        assert sum(isinstance(answer, AlreadyReported) for answer in answers) == 29
        assert (await get(bus, started)).check.workers_completed == 1

    async def test_a_thousand_workers_from_fifty_callers(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        started = await a_check(bus, *(f"worker-{number}" for number in range(1000)))
        waiting = iter(enumerate(ids(started)))

        async def caller() -> None:
            for number, id_ in waiting:
                await report(bus, id_, "healthy" if number % 10 else "critical", score=number / 999)

        await asyncio.gather(*(caller() for _ in range(50)))

        check = (await get(bus, started)).check
        assert (check.status, check.workers_completed) == ("failed", 1000)
        assert (check.workers_passed, check.workers_failed) == (900, 100)
        assert check.overall_score == pytest.approx(0.5)
        assert await outbox.count("check.completed") == 1
        query = "SELECT count(DISTINCT xid) FROM bus.outbox WHERE type = 'worker_check.reported'"
        transactions = await scalar(db, query)
        print(f"1,000 reports took {transactions} transactions")  # noqa: T201  a figure for the notes
        assert transactions < 200
        assert check.version == transactions + 1, "the check is locked once in each"
        last = await outbox.last()
        assert last.type == "check.completed"


class TestGetCheck:
    async def test_with_its_workers_by_name(self, bus: Bus) -> None:
        started = await a_check(bus, "b", "a")
        details = await get(bus, started)
        assert details.check == started.check
        assert [worker.worker_name for worker in details.workers] == ["a", "b"]


class TestListChecks:
    async def test_filters(self, bus: Bus, statements: Any) -> None:
        one = await a_check(bus, "a")
        two = await a_check(bus, "a", trigger_type="package")
        await report(bus, ids(one)[0])
        with statements() as counted:
            page = await bus.call(checks.ListChecks(status="running"))
        assert ([check.id for check in page.items], counted.total) == ([two.check.id], 1)
        page = await bus.call(checks.ListChecks(trigger_type="on_demand"))
        assert [check.id for check in page.items] == [one.check.id]


class TestCancelCheck:
    async def test_cancelled(self, bus: Bus, outbox: Outbox) -> None:
        started = await a_check(bus, "a", "b")
        one, two = ids(started)
        await report(bus, one)
        cancelled = await bus.call(checks.CancelCheck(id=started.check.id))
        assert (cancelled.status, cancelled.workers_completed) == ("cancelled", 1)
        assert [w.status for w in (await get(bus, started)).workers] == ["completed", "cancelled"]
        assert (await outbox.types())[-1] == "check.cancelled"
        with pytest.raises(InvalidTransition):
            await report(bus, two)
        with pytest.raises(InvalidTransition):
            await bus.call(checks.CancelCheck(id=started.check.id))

    async def test_while_reports_come_in(self, bus: Bus) -> None:
        started = await a_check(bus, *(f"worker-{number}" for number in range(40)))
        cancelled = bus.call(checks.CancelCheck(id=started.check.id))
        reports: list[Any] = [report(bus, id_) for id_ in ids(started)[:39]]
        answers: list[Any] = await asyncio.gather(
            *reports[:20], cancelled, *reports[20:], return_exceptions=True
        )
        counted = sum(isinstance(answer, checks.WorkerCheck) for answer in answers)
        check = (await get(bus, started)).check
        assert (check.status, check.workers_completed) == ("cancelled", counted)
        refused = [answer for answer in answers if isinstance(answer, Exception)]
        assert all(isinstance(answer, InvalidTransition) for answer in refused)


class TestGetLatestWorkerCheck:
    async def test_the_last_one(self, bus: Bus) -> None:
        await a_check(bus, "a")
        second = await a_check(bus, "a")
        reported = await report(bus, ids(second)[0], raw={"everything": True})
        latest = await bus.call(checks.GetLatestWorkerCheck(worker_name="a"))
        assert latest == reported

    async def test_unknown(self, bus: Bus) -> None:
        with pytest.raises(WorkerCheckNotFound, match="worker a has never been part of a check"):
            await bus.call(checks.GetLatestWorkerCheck(worker_name="a"))


@asynccontextmanager
async def sweeping(service: Service) -> AsyncIterator[tuple[Service, Service]]:
    """Two more processes, as far as Postgres can tell, that do periodic work all the time."""
    settings = service.settings.model_copy(update={"sweeper": True, "sweep_interval": 0.01})
    two = Service(settings, service.registry), Service(settings, service.registry)
    for one in two:
        await one.start()
    try:
        yield two
    finally:
        for one in two:
            await one.stop()


class TestExpiry:
    async def test_workers_that_never_answer(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox, sweep: Sweep
    ) -> None:
        started = await a_check(bus, "a", "b", "c")
        await report(bus, ids(started)[0], score=1.0)
        assert await sweep("expire_worker_checks") == 0
        await later(db, "checks", "timeout_at", HOUR)
        assert await sweep("expire_worker_checks") == 2
        assert await sweep("expire_worker_checks") == 0
        check = (await get(bus, started)).check
        assert (check.status, check.workers_completed, check.workers_failed) == ("timeout", 1, 2)
        assert check.overall_score == 1.0
        assert (await outbox.types())[-1] == "check.timed_out"
        with pytest.raises(InvalidTransition):
            await report(bus, ids(started)[1])

    async def test_in_steps_and_once_though_a_process_is_lost(
        self, bus: Bus, service: Service, db: AsyncConnection, outbox: Outbox
    ) -> None:
        started = await a_check(bus, *(f"worker-{number}" for number in range(1500)))
        await later(db, "checks", "timeout_at", HOUR)
        async with sweeping(service) as (one, _):
            await one.abandon()
            async with asyncio.timeout(20):
                while (check := (await get(bus, started)).check).status == "running":  # noqa: ASYNC110  there is nothing to wait for
                    await asyncio.sleep(0.05)
            await asyncio.sleep(0.2)
        assert (check.status, check.workers_failed) == ("timeout", 1500)
        assert await outbox.count("check.timed_out") == 1

    async def test_reports_at_the_last_moment(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox, sweep: Sweep
    ) -> None:
        started = await a_check(bus, *(f"worker-{number}" for number in range(60)))
        await later(db, "checks", "timeout_at", HOUR)
        answers = await asyncio.gather(
            *(report(bus, id_) for id_ in ids(started)),
            sweep("expire_worker_checks"),
            return_exceptions=True,
        )
        await sweep("expire_worker_checks")
        reported = sum(isinstance(answer, checks.WorkerCheck) for answer in answers)
        check = (await get(bus, started)).check
        assert check.workers_completed == reported
        assert check.workers_passed + check.workers_failed == 60
        ends = [
            type_
            for type_ in await outbox.types()
            if type_ in {"check.completed", "check.timed_out"}
        ]
        assert len(ends) == 1


class TestTwoProcesses:
    async def test_one_event_for_each_due_time(
        self, bus: Bus, service: Service, db: AsyncConnection, outbox: Outbox
    ) -> None:
        await a_schedule(bus, cron=YEARLY)
        async with sweeping(service):
            for number, years in enumerate((1, 1, 4, 1), start=1):
                await later(db, "schedules", "next_due_at", years * YEAR)
                async with asyncio.timeout(10):
                    while await outbox.count("schedule.due") < number:  # noqa: ASYNC110  there is nothing to wait for
                        await asyncio.sleep(0.02)
                await asyncio.sleep(0.15)
                assert await outbox.count("schedule.due") == number
