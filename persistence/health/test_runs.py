"""Queries of test runs."""

from __future__ import annotations

from sqlalchemy import bindparam
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage import Listing, equal
from contracts.health.test_runs import ListTestRuns, TestRun
from persistence.health.tables import test_run

_LIST = Listing(
    ListTestRuns,
    {
        **equal(test_run, "test_definition_id", "session_id", "status"),
        "since": test_run.c.started_at >= bindparam("since", type_=test_run.c.started_at.type),
    },
)


async def latest(db: AsyncConnection, limit: int) -> list[TestRun]:
    """The runs that were started last, the latest first; as many as fit into a message."""
    return list((await _LIST.page(db, ListTestRuns(limit=limit))).items)
