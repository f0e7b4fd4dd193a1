"""Queries of test runs."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from contracts._declare import Page
from contracts.health.test_runs import ListTestRuns, TestRun
from persistence import _paging
from persistence._entities import columns, entity_from
from persistence._filters import equal
from persistence.health.tables import test_run


async def page(db: AsyncConnection, query: ListTestRuns) -> Page[TestRun]:
    """A page of the test runs that pass the filters."""
    where = equal(query, test_run, "test_definition_id", "session_id", "status")
    if query.since is not None:
        where.append(test_run.c.started_at >= query.since)
    return await _paging.page(db, query, TestRun, where)


async def latest(db: AsyncConnection, limit: int) -> list[TestRun]:
    """The runs that were started last, the latest first."""
    order = test_run.c.started_at.desc(), test_run.c.id.desc()
    rows = await db.execute(columns(TestRun).order_by(*order).limit(limit))
    return [entity_from(TestRun, row) for row in rows]
