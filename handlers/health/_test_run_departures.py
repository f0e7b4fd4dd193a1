"""Test runs that go: model calls that were made for them are let go of, and that is told."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.handling import Emit, emit_all, periodic
from bus.storage import is_deleting
from contracts.health.model_calls import ModelCallDetached
from contracts.health.test_definitions import TestDefinition
from persistence.health import model_calls as _model_calls
from persistence.health import test_runs as _test_runs


async def remove(
    runs: Collection[UUID],
    *,
    db: AsyncConnection,
    emit: Emit,
    now: datetime,
    limit: int | None = None,
) -> bool:
    """Delete these locked runs; False if there are more calls to let go of than the limit."""
    detached = await _model_calls.detach(db, runs, now=now, limit=limit) if runs else []
    emit_all(detached, emit=emit)
    if len(detached) == limit:
        return False

    await _test_runs.remove(db, runs)
    return True


@periodic(every=1.0, limit=1_000, emits=(ModelCallDetached,))
async def detach_removed_runs(*, db: AsyncConnection, emit: Emit, now: datetime, limit: int) -> int:
    """Let calls go of runs that went with their definition, before their rows are removed."""
    if not await is_deleting(db, TestDefinition):
        return 0
    detached = await _model_calls.detach_gone(db, now=now, limit=limit)
    emit_all(detached, emit=emit)

    return len(detached)
