"""What is too old is forgotten, in bounded steps; counts of it are merged meanwhile."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.handling import Configured, Emit, periodic
from contracts.health.model_calls import ModelCallDetached
from handlers.health import _departing_runs
from persistence.health import sweeping as _sweeping

NEWEST_KEPT = 1_000
"""So many runs of each definition are kept, however old they are."""

Retention = Annotated[timedelta, Configured("history_retention")]


@periodic(every=60.0, limit=1_000, emits=(ModelCallDetached,))
async def forget_test_runs(
    *, db: AsyncConnection, emit: Emit, now: datetime, retention: Retention, limit: int
) -> int:
    """Delete old runs beyond the newest of each definition; returns how many."""
    before = now - retention
    old = await _sweeping.lock_old_runs(db, before=before, kept=NEWEST_KEPT, limit=limit)

    gone = await _departing_runs.remove(old, db=db, emit=emit, now=now, limit=limit)
    return len(old) if gone else limit


@periodic(every=60.0, limit=1_000)
async def forget_model_calls(
    *, db: AsyncConnection, now: datetime, retention: Retention, limit: int
) -> int:
    """Delete old calls to models; returns how many."""
    return await _sweeping.forget_calls(db, before=now - retention, limit=limit)


@periodic(every=5.0, limit=1_000)
async def merge_tallies(*, db: AsyncConnection, limit: int) -> int:
    """Let one row stand for all that transactions appended; returns for how many hours or days."""
    return await _sweeping.merge_tallies(db, limit=limit)
