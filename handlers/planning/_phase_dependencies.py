"""What phases wait for, and when they no longer have to."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.handling import Emit, emit_all
from contracts.planning.phases import PhaseDispatchable
from persistence.planning import phases


async def emit_dispatchable(
    locked: Collection[UUID],
    *,
    db: AsyncConnection,
    emit: Emit,
    needing: Collection[UUID] | None = None,
) -> None:
    """Tell of those of these locked phases that can be started.

    ``needing``: only of those that depend on one of these.
    """
    if not locked:
        return
    dispatchable = await phases.dispatchable_among(db, locked, needing)
    emit_all((PhaseDispatchable(phase=phase) for phase in dispatchable), emit=emit)
