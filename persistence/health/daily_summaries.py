"""Queries of daily summaries."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sqlalchemy import Double, cast, func, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage import Listing, present
from contracts.health.daily_summaries import ListDailySummaries
from contracts.health.test_runs import TestRun
from persistence.health.tables import model_call, test_run

Listing(ListDailySummaries)


async def measure(db: AsyncConnection, day: date) -> dict[str, Any]:
    """The numbers of a summary, from the runs that were started and the calls made that day."""
    start = datetime.combine(day, time(), UTC)
    end = start + timedelta(days=1)
    run, call = test_run.c, model_call.c
    passed = func.count().filter(run.status == "success")
    failed = func.count().filter(run.status.in_(("failure", "timeout")))
    runs = select(
        (passed + failed).label("total"),
        passed.label("passed"),
        failed.label("failed"),
        func.count().filter(run.status == "skipped").label("skipped"),
        cast(func.avg(run.duration_ms).filter(run.status != "skipped"), Double).label(
            "mean_latency_ms"
        ),
    ).where(run.started_at >= start, run.started_at < end, *present(TestRun))
    calls = select(func.sum(call.cost_usd).label("cost_usd"), func.count().label("model_calls"))
    calls = calls.where(call.created_at >= start, call.created_at < end)
    of_runs, of_calls = runs.subquery(), calls.subquery()
    both = select(of_runs, of_calls).select_from(of_runs.join(of_calls, true()))
    row = (await db.execute(both)).one()
    return dict(row._mapping)  # noqa: SLF001  SQLAlchemy's public name
