"""A test definition with many runs is gone at once; its runs are removed in steps."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import AlreadyExists, InvalidReference, Refusal
from contracts.health import test_runs
from contracts.health.daily_summaries import ComputeDailySummary
from contracts.health.health import GetDashboard, GetHealthStatus, LastRuns, RunsSince
from contracts.health.model_calls import ListModelCalls, RecordModelCall
from fleetbus.client import Bus
from fleetbus.server.config import Settings
from fleetbus.server.service import Service
from fleetbus.server.sweeper import sweeper as _sweeper
from tests.health.arrange import YEAR, YEARLY, a_definition, a_run, definitions, later, scalar
from tests.kit.outbox import Outbox
from tests.kit.sweeping import Sweep

BOUND = 3


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"delete_at_once": BOUND})


async def large(bus: Bus, **fields: Any) -> list[test_runs.TestRun]:
    """A definition with more runs than may be deleted at once; another one has a run too."""
    await a_definition(bus, **fields)
    await a_definition(bus, "other")
    await a_run(bus, "failure", test_definition_id="other")
    return [await a_run(bus) for _ in range(BOUND + 1)]


async def rows_left(db: AsyncConnection) -> int:
    """The runs of the definition, with its note; the other one has a run."""
    query = "SELECT (SELECT count(*) FROM health.test_runs) + (SELECT count(*) FROM bus.deletions)"
    return int(await scalar(db, query)) - 1


async def remove_all(sweep: Sweep) -> None:
    while await sweep("detach_removed_runs") or await sweep("remove_deleted"):
        pass


class TestGoneAtOnce:
    async def test_for_who_asks_for_it_or_its_runs(self, bus: Bus, db: AsyncConnection) -> None:
        runs = await large(bus)
        start = test_runs.StartTestRun(test_definition_id="homepage")
        running = await bus.call(start)
        recorded = test_runs.RecordTestRun(test_definition_id="homepage", status="success")

        deletion = await bus.call(definitions.DeleteTestDefinition(id="homepage"))

        assert deletion.deleted.runs == BOUND + 2
        assert await rows_left(db) == BOUND + 3
        gone: list[tuple[type[Refusal], Any]] = [
            (
                definitions.TestDefinitionNotFound,
                definitions.GetTestDefinition(id="homepage"),
            ),
            (
                definitions.TestDefinitionNotFound,
                definitions.DeleteTestDefinition(id="homepage"),
            ),
            (test_runs.TestRunNotFound, test_runs.GetTestRun(id=runs[0].id)),
            (test_runs.TestRunNotFound, test_runs.FinishTestRun(id=running.id, status="success")),
            (InvalidReference, start),
            (InvalidReference, recorded),
            (
                InvalidReference,
                RecordModelCall(test_run_id=runs[0].id, model="m", provider="p", success=True),
            ),
        ]
        for refusal, request in gone:
            with pytest.raises(refusal):
                await bus.call(request)

    async def test_for_lists_counts_and_dashboards(
        self, bus: Bus, monkeypatch: pytest.MonkeyPatch, sweep: Sweep
    ) -> None:
        monkeypatch.setattr(_sweeper, "REMOVED_PER_STEP", 2)
        [run, *_] = await large(bus)
        await bus.call(definitions.DeleteTestDefinition(id="homepage"))

        async def seen() -> list[Any]:
            window = RunsSince(since=run.started_at - timedelta(days=2))
            dashboard = await bus.call(GetDashboard())
            return [
                [one.id for one in (await bus.call(definitions.ListTestDefinitions())).items],
                (await bus.call(test_runs.ListTestRuns(count="exact"))).total,
                len((await bus.call(test_runs.GetLatestTestRuns())).items),
                await bus.call(GetHealthStatus(window=LastRuns(last=10))),
                await bus.call(GetHealthStatus(window=window)),
                dashboard.last_24_hours.model_dump(),
                dashboard.trend[-1].runs.model_dump(),
                (await bus.call(ComputeDailySummary(day=run.started_at.date()))).total,
            ]

        at_first = await seen()
        assert at_first[:3] == [["other"], 1, 1]
        assert {(status.passed, status.failed) for status in at_first[3:5]} == {(0, 1)}
        assert {(counts["success"], counts["failure"]) for counts in at_first[5:7]} == {(0, 1)}
        assert at_first[7] == 1
        while await sweep("remove_deleted"):
            assert await seen() == at_first
        assert await seen() == at_first

    async def test_for_the_sweeper(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox, sweep: Sweep
    ) -> None:
        await large(bus, schedule=YEARLY)
        await bus.call(test_runs.StartTestRun(test_definition_id="homepage"))
        await bus.call(definitions.DeleteTestDefinition(id="homepage"))
        await later(db, "test_definitions", "next_due_at", YEAR)
        await later(db, "test_runs", "timeout_at", YEAR)

        assert await sweep("tell_due_definitions") == 0
        assert await sweep("expire_test_runs") == 0
        assert (await outbox.last()).type == "test_definition.deleted"

    async def test_its_id_is_free_when_nothing_is_left(
        self, bus: Bus, service: Service, db: AsyncConnection
    ) -> None:
        await large(bus)
        await bus.call(definitions.DeleteTestDefinition(id="homepage"))
        with pytest.raises(AlreadyExists):
            await a_definition(bus)

        await remove_all(Sweep(service))

        assert await rows_left(db) == 0
        assert (await a_definition(bus)).version == 1
        await bus.call(definitions.UpsertTestDefinition(id="homepage", description="Once more"))
        assert (await bus.call(test_runs.ListTestRuns(test_definition_id="homepage"))).items == []


class TestTold:
    async def test_once_and_calls_let_go_of_runs(
        self, bus: Bus, service: Service, db: AsyncConnection, outbox: Outbox, sweep: Sweep
    ) -> None:
        runs = await large(bus)
        call = await bus.call(
            RecordModelCall(test_run_id=runs[0].id, model="m", provider="p", success=True)
        )
        await bus.call(definitions.DeleteTestDefinition(id="homepage"))
        [deleted] = await outbox.data("test_definition.deleted")
        assert deleted["deleted"] == {"runs": len(runs)}
        assert deleted["run_ids"] == [str(run.id) for run in runs]

        # What somebody refers to stays until it is let go of.
        while await sweep("remove_deleted"):
            pass
        assert await rows_left(db) == 2
        await remove_all(Sweep(service))

        assert await rows_left(db) == 0
        [detached] = await outbox.data("model_call.detached")
        assert detached["test_run_id"] == str(runs[0].id)
        [after] = (await bus.call(ListModelCalls())).items
        assert (after.test_run_id, after.version) == (None, call.version + 1)

    async def test_many_calls_count_too(self, bus: Bus, db: AsyncConnection) -> None:
        await a_definition(bus)
        run = await a_run(bus)
        for _ in range(BOUND):
            await bus.call(
                RecordModelCall(test_run_id=run.id, model="m", provider="p", success=True)
            )
        await bus.call(definitions.DeleteTestDefinition(id="homepage"))
        assert await scalar(db, "SELECT parts FROM bus.deletions") == 1


class TestAtOnce:
    async def test_no_run_is_told_after_the_deletion(
        self, bus: Bus, service: Service, db: AsyncConnection, outbox: Outbox
    ) -> None:
        await large(bus)
        started = asyncio.Event()

        async def work() -> int:
            for recorded in range(1_000):
                try:
                    await a_run(bus)
                except InvalidReference:
                    return recorded
                started.set()
            raise AssertionError

        working = [asyncio.create_task(work()) for _ in range(4)]
        await started.wait()
        deletion, *others = await asyncio.gather(
            *(bus.call(definitions.DeleteTestDefinition(id="homepage")) for _ in range(2)),
            return_exceptions=True,
        )
        recorded = sum(await asyncio.gather(*working))

        refused = [one for one in (deletion, *others) if isinstance(one, BaseException)]
        assert [type(one) for one in refused] == [definitions.TestDefinitionNotFound]
        types = await outbox.types()
        assert types[-1] == "test_definition.deleted"
        assert types.count("test_definition.deleted") == 1
        [deleted] = await outbox.data("test_definition.deleted")
        assert deleted["deleted"] == {"runs": BOUND + 1 + recorded}
        await remove_all(Sweep(service))
        assert await rows_left(db) == 0
