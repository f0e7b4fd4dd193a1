"""Queries of calls to models."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    DateTime,
    Double,
    Integer,
    Uuid,
    bindparam,
    cast,
    func,
    select,
    text,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage import Listing, equal
from contracts.health.model_calls import (
    DetachedModelCall,
    ListModelCalls,
    ModelCallDetached,
    ModelUsage,
)
from persistence.health.tables import model_call, model_tally

Listing(ListModelCalls, equal(model_call, "test_run_id"))


_DETACH = text(
    """
    UPDATE health.model_calls SET test_run_id = NULL, version = version + 1, updated_at = :now
    WHERE id IN (
        SELECT id FROM health.model_calls WHERE test_run_id = ANY(:runs)
        ORDER BY id LIMIT :limit FOR UPDATE
    )
    RETURNING id, version, old.test_run_id AS test_run_id
    """
).bindparams(
    bindparam("runs", type_=ARRAY(Uuid)),
    bindparam("limit", type_=Integer),
    bindparam("now", type_=DateTime(timezone=True)),
)


_DETACH_GONE = text(
    """
    UPDATE health.model_calls SET test_run_id = NULL, version = version + 1, updated_at = :now
    WHERE id IN (
        SELECT c.id FROM health.model_calls c JOIN health.test_runs r ON r.id = c.test_run_id
        WHERE r.test_definition_id IN (
            SELECT id FROM bus.deletions WHERE entity = 'test_definition'
        )
        LIMIT :limit FOR UPDATE OF c
    )
    RETURNING id, version, old.test_run_id AS test_run_id
    """
).bindparams(
    bindparam("limit", type_=Integer),
    bindparam("now", type_=DateTime(timezone=True)),
)


async def detach(
    db: AsyncConnection, runs: Collection[UUID], *, now: datetime, limit: int | None
) -> list[ModelCallDetached]:
    """Let calls go that were made for these locked runs, ``limit`` at most; what to tell."""
    rows = await db.execute(_DETACH, {"runs": list(runs), "limit": limit, "now": now})
    return [_detached(row) for row in rows]


async def detach_gone(db: AsyncConnection, *, now: datetime, limit: int) -> list[ModelCallDetached]:
    """The same for runs that are gone with their definition and still to be removed."""
    rows = await db.execute(_DETACH_GONE, {"limit": limit, "now": now})
    return [_detached(row) for row in rows]


def _detached(row: Any) -> ModelCallDetached:
    return ModelCallDetached(
        model_call=DetachedModelCall(id=row.id, version=row.version), test_run_id=row.test_run_id
    )


async def usage(db: AsyncConnection, first: date) -> list[ModelUsage]:
    """The use of each model on this day and later, from the tallies."""
    own = model_tally.c
    calls = func.sum(own.calls)
    mean = cast(func.sum(own.latency_ms) / func.nullif(func.sum(own.timed_calls), 0), Double)
    statement = (
        select(
            own.provider,
            own.model,
            calls.label("calls"),
            func.sum(own.tokens).label("tokens"),
            func.sum(own.cost_usd).label("cost_usd"),
            mean.label("mean_latency_ms"),
        )
        .where(own.day >= first)
        .group_by(own.provider, own.model)
        .having(calls > 0)
        .order_by(calls.desc(), own.provider, own.model)
    )
    rows = await db.execute(statement)
    return [ModelUsage.model_validate(dict(row._mapping), strict=False) for row in rows]  # noqa: SLF001  SQLAlchemy's public name
