"""What tests of health start from, and time that passes."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.health import checks, schedules, test_definitions, test_runs
from contracts.health.checks import CheckedWorker
from fleetbus.client import Bus

definitions = test_definitions
runs = test_runs

YEARLY = "0 0 1 1 *"
"""Due so seldom that nothing becomes due by the clock on the wall while a test runs."""

YEAR = timedelta(days=366)


async def a_definition(
    bus: Bus, id_: str = "homepage", **fields: Any
) -> definitions.TestDefinition:
    given = {"description": "The homepage answers", "endpoint": "https://example.org/", **fields}
    return await bus.call(definitions.UpsertTestDefinition(id=id_, **given))


async def a_run(bus: Bus, status: Any = "success", **fields: Any) -> runs.TestRun:
    fields.setdefault("test_definition_id", "homepage")
    return await bus.call(runs.RecordTestRun(status=status, **fields))


async def a_check(bus: Bus, *names: str, **fields: Any) -> checks.StartedCheck:
    workers = [CheckedWorker(name=name, type="builder") for name in names]
    fields.setdefault("trigger_type", "on_demand")
    return await bus.call(checks.StartCheck(workers=workers, **fields))


async def a_schedule(bus: Bus, name: str = "nightly", **fields: Any) -> schedules.Schedule:
    return await bus.call(schedules.UpsertSchedule(**{"name": name, "cron": "* * * * *", **fields}))


async def later(db: AsyncConnection, table: str, column: str, by: timedelta) -> None:
    """Let time pass for a table: what it waits for comes nearer by so much."""
    await db.execute(
        text(f"UPDATE health.{table} SET {column} = {column} - CAST(:by AS interval)"), {"by": by}
    )


async def scalar(db: AsyncConnection, query: str, **values: Any) -> Any:
    return (await db.execute(text(query), values)).scalar_one()


def ids(started: checks.StartedCheck) -> list[UUID]:
    return [worker.id for worker in started.workers]
