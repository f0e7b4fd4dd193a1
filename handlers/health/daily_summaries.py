"""What happens to daily summaries."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.handling import Emit, handler, query, values_of, with_values
from bus.storage import add, get_by, lock_or_reserve, save
from contracts.health.daily_summaries import (
    ComputeDailySummary,
    DailySummary,
    DailySummaryChanged,
    DayNotBegun,
    GetDailySummary,
    NoRunsOfDay,
    UpsertDailySummary,
)
from handlers.health._health_status import day_status
from persistence.health import daily_summaries


@handler
async def upsert_daily_summary(
    command: UpsertDailySummary, *, db: AsyncConnection, emit: Emit, new_id: UUID, now: datetime
) -> DailySummary:
    _refuse_days_ahead(command.day, now)

    return await _put(values_of(command), new_id, db=db, emit=emit, now=now)


@query
async def get_daily_summary(query: GetDailySummary, *, db: AsyncConnection) -> DailySummary:
    return await get_by(db, DailySummary, day=query.day)


@handler
async def compute_daily_summary(
    command: ComputeDailySummary, *, db: AsyncConnection, emit: Emit, new_id: UUID, now: datetime
) -> DailySummary:
    _refuse_days_ahead(command.day, now)
    numbers = await daily_summaries.measure(db, command.day)
    if numbers["total"] == 0:
        raise NoRunsOfDay(day=command.day)

    status = day_status(passed=numbers["passed"], failed=numbers["failed"])
    values = {"day": command.day, "overall_status": status, **numbers}

    return await _put(values, new_id, db=db, emit=emit, now=now)


def _refuse_days_ahead(day: date, now: datetime) -> None:
    if day > now.date():
        raise DayNotBegun(day=day)


async def _put(
    values: dict[str, Any], new_id: UUID, *, db: AsyncConnection, emit: Emit, now: datetime
) -> DailySummary:
    known = await lock_or_reserve(db, DailySummary, day=values["day"])
    if known is None:
        words = {"issues": None, "recommendations": None}
        changed = DailySummary.first(id=new_id, now=now, **words | values)
        await add(db, [changed])
    elif updated := with_values(known, now, values):
        changed = updated
        await save(db, [changed])
    else:
        return known
    emit(DailySummaryChanged(daily_summary=changed))

    return changed
