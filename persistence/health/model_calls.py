"""Queries of calls to models."""

from __future__ import annotations

from datetime import date

from sqlalchemy import Double, cast, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage import Listing, equal
from contracts.health.model_calls import ListModelCalls, ModelUsage
from persistence.health.tables import model_call, model_tally

Listing(ListModelCalls, equal(model_call, "test_run_id"))


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
