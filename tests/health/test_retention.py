from datetime import UTC, datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from fleetbus.client import Bus
from handlers.health._health_retention import NEWEST_KEPT
from tests.health.arrange import a_definition, scalar
from tests.health.test_health import COUNTED
from tests.kit.outbox import Outbox
from tests.kit.sweeping import Sweep

RETENTION = timedelta(days=90)

RUNS = """
    INSERT INTO health.test_runs (id, test_definition_id, status, started_at, timeout_at)
    SELECT uuidv7(), :name, 'success', newest - n * interval '1 minute', newest
    FROM generate_series(1, :number) AS n, (SELECT CAST(:newest AS timestamptz)) AS t (newest)
"""
CALLS = """
    INSERT INTO health.model_calls (id, test_run_id, model, provider, success, created_at)
    SELECT uuidv7(), (SELECT id FROM health.test_runs ORDER BY started_at LIMIT 1), 'm', 'p', true,
           now() - n * interval '10 days'
    FROM generate_series(1, 12) AS n
"""


async def add_runs(db: AsyncConnection, name: str, number: int, age: timedelta) -> None:
    newest = datetime.now(UTC) - age
    await db.execute(text(RUNS), {"name": name, "number": number, "newest": newest})


class TestRetention:
    async def test_old_runs_go_in_steps_and_the_newest_of_each_definition_stay(
        self, bus: Bus, db: AsyncConnection, sweep: Sweep
    ) -> None:
        for name in ("busy", "quiet", "old"):
            await a_definition(bus, name)
        old = RETENTION + timedelta(days=1)
        await add_runs(db, "busy", 1500, timedelta())
        await add_runs(db, "busy", 1200, old)
        await add_runs(db, "quiet", 300, old)
        await add_runs(db, "old", NEWEST_KEPT + 5, old)

        steps = [await sweep("forget_test_runs") for _ in range(3)]

        assert steps == [1000, 205, 0]
        kept = "SELECT count(*) FROM health.test_runs WHERE test_definition_id = :name"
        assert await scalar(db, kept, name="busy") == 1500
        assert await scalar(db, kept, name="quiet") == 300
        assert await scalar(db, kept, name="old") == NEWEST_KEPT
        assert await scalar(db, COUNTED) == 0

    async def test_old_calls_go_and_a_call_outlives_its_run(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox, sweep: Sweep
    ) -> None:
        await a_definition(bus, "one")
        await add_runs(db, "one", NEWEST_KEPT + 1, RETENTION + timedelta(days=1))
        await db.execute(text(CALLS))
        assert await sweep("forget_test_runs") == 1
        orphans = "SELECT count(*) FROM health.model_calls WHERE test_run_id IS NULL"
        assert await scalar(db, orphans) == 12
        events = await outbox.data("model_call.detached")
        assert {event["model_call"]["version"] for event in events} == {2}
        assert len({event["model_call"]["id"] for event in events}) == 12
        assert await sweep("forget_model_calls") == 4
        assert await sweep("forget_model_calls") == 0
        assert await scalar(db, "SELECT sum(calls) FROM health.model_tallies") == 8
