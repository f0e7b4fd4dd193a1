"""Queries of test runs."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, bindparam, delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import MOST_GONE
from bus.storage import Listing, equal
from contracts.health.test_runs import ListTestRuns, TestRun
from persistence.health.tables import model_call, test_run

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


async def lock_of(db: AsyncConnection, definition: str) -> list[UUID]:
    """Lock the runs of a locked definition, so that nothing can refer to them any more."""
    mine = select(test_run.c.id).where(test_run.c.test_definition_id == definition)
    return list((await db.execute(mine.order_by(test_run.c.id).with_for_update())).scalars())


async def going(db: AsyncConnection, definition: str) -> tuple[list[UUID], int, int]:
    """What goes with a locked definition: the first runs, how many, and their calls to models."""
    run, call = test_run.c, model_call.c
    mine = run.test_definition_id == definition
    first = select(run.id).where(mine).order_by(run.id).limit(MOST_GONE)
    runs = select(func.count()).where(mine)
    calls = select(func.count()).select_from(model_call.join(test_run, run.id == call.test_run_id))
    counted = select(runs.scalar_subquery(), calls.where(mine).scalar_subquery())
    number, number_of_calls = (await db.execute(counted)).one()
    return list((await db.execute(first)).scalars()), number, number_of_calls


_REMOVE = delete(test_run).where(test_run.c.id == func.any(bindparam("ids", type_=ARRAY(Uuid))))


async def remove(db: AsyncConnection, ids: Collection[UUID]) -> None:
    """Delete these locked runs, which nothing refers to any more."""
    await db.execute(_REMOVE, {"ids": list(ids)})
