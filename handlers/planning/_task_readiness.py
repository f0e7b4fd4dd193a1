"""What becomes ready, by whatever happens: the one place that tells of it.

Each change that readiness follows from has its event, and each such event its reaction here. The
rules stand in ``persistence/planning/task_readiness.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.handling import Emit, emit_all, reaction
from contracts.planning.initiatives import (
    InitiativeApproved,
    InitiativeArchived,
    InitiativeChangesRequested,
    InitiativePendingReview,
    InitiativeReopened,
    InitiativeUnarchived,
)
from contracts.planning.phases import (
    PhaseBlocked,
    PhaseChangesRequested,
    PhaseCompleted,
    PhasePendingReview,
    PhaseStarted,
    PhaseUnblocked,
)
from contracts.planning.tasks import (
    Task,
    TaskBlocked,
    TaskCompleted,
    TaskDependencyAdded,
    TaskDependencyRemoved,
    TaskLeaseExpired,
    TaskReady,
    TaskReleased,
    TaskRetried,
    TaskUpdated,
)
from persistence.planning import task_readiness as _task_readiness
from persistence.planning.task_graph import TASK_GRAPH

PhaseMoved = (
    PhaseStarted
    | PhaseBlocked
    | PhaseUnblocked
    | PhasePendingReview
    | PhaseChangesRequested
    | PhaseCompleted
)
InitiativeMoved = (
    InitiativePendingReview
    | InitiativeApproved
    | InitiativeChangesRequested
    | InitiativeReopened
    | InitiativeArchived
    | InitiativeUnarchived
)


def _was_blocked(event: TaskCompleted) -> bool:
    return event.previous_status == "blocked"


def _is_elsewhere(event: TaskUpdated) -> bool:
    return event.moved


# Whoever makes a task depend on another one locks that one first: none appears meanwhile.
@reaction(where=TASK_GRAPH.have_dependents, emits=(TaskReady,))
async def tell_ready_dependents(
    events: Sequence[TaskCompleted], *, db: AsyncConnection, emit: Emit
) -> None:
    """Locked before they are looked at: of two transactions that complete the last two things
    that a task waited for, the later one sees what the earlier one did.
    """
    _emit_ready(
        await _task_readiness.refresh_dependents(db, [event.task.id for event in events]), emit
    )


@reaction(about=_was_blocked, emits=(TaskReady,))
async def tell_ready_below_completed(
    events: Sequence[TaskCompleted], *, db: AsyncConnection, emit: Emit
) -> None:
    """A blocked task that a late result completes holds nothing below it back any more."""
    ids = [event.task.id for event in events]
    _emit_ready(await _task_readiness.refresh_children(db, ids, held=True), emit)


# Whoever puts a task below another one locks that one: none appears meanwhile.
@reaction(where=_task_readiness.HAVE_CHILDREN, emits=(TaskReady,))
async def hold_back_below(
    events: Sequence[TaskBlocked], *, db: AsyncConnection, emit: Emit
) -> None:
    """What is below a blocked task waits with it."""
    _emit_ready(
        await _task_readiness.refresh_children(db, [event.task.id for event in events]), emit
    )


@reaction(where=_task_readiness.HELD_BACK_BY_NOTHING, emits=(TaskReady,))
async def tell_ready_again(
    events: Sequence[TaskReleased | TaskLeaseExpired | TaskRetried],
    *,
    db: AsyncConnection,
    emit: Emit,
) -> None:
    """A task is pending again; if it was blocked before, what is below it may go on as well."""
    # What is above one may have been blocked with it.
    lower = [event.task.id for event in events if event.task.parent_task_id is not None]
    retried = [event.task.id for event in events if isinstance(event, TaskRetried)]
    found = await _task_readiness.refresh(db, lower) if lower else []
    if retried:
        found += await _task_readiness.refresh_children(db, retried, held=True)
    found += await _task_readiness.ready_among(db, [event.task.id for event in events])
    _emit_ready({task.id: task for task in found}.values(), emit)


@reaction(emits=(TaskReady,))
async def follow_dependencies(
    events: Sequence[TaskDependencyAdded | TaskDependencyRemoved],
    *,
    db: AsyncConnection,
    emit: Emit,
) -> None:
    """A task that waits for something else than before, and what is below it."""
    _emit_ready(await _task_readiness.refresh(db, {event.task.id for event in events}), emit)


@reaction(about=_is_elsewhere, emits=(TaskReady,))
async def follow_moves(events: Sequence[TaskUpdated], *, db: AsyncConnection, emit: Emit) -> None:
    """A task in another phase than before, and what is below it."""
    _emit_ready(await _task_readiness.refresh_moved(db, {event.task.id for event in events}), emit)


# Whoever puts a task into a phase or an initiative locks it: none appears meanwhile.
@reaction(where=_task_readiness.ARE_IN_PHASES, emits=(TaskReady,))
async def follow_phases(
    events: Sequence[PhaseMoved], *, db: AsyncConnection, emit: Emit, now: datetime
) -> None:
    """Work on a phase begins, goes on or rests."""
    found = await _task_readiness.refresh_in_phases(db, {event.phase.id for event in events})
    _emit_ready(_not_new(found, now), emit)


@reaction(where=_task_readiness.ARE_IN_INITIATIVES, emits=(TaskReady,))
async def follow_initiatives(
    events: Sequence[InitiativeMoved], *, db: AsyncConnection, emit: Emit, now: datetime
) -> None:
    """Work on an initiative goes on or rests."""
    ids = {event.initiative.id for event in events}
    _emit_ready(_not_new(await _task_readiness.refresh_in_initiatives(db, ids), now), emit)


def _emit_ready(tasks: Iterable[Task], emit: Emit) -> None:
    emit_all((TaskReady(task=task) for task in tasks), emit=emit)


def _not_new(tasks: Iterable[Task], now: datetime) -> Iterator[Task]:
    """Those that were there before: what is created is told by its creation."""
    return (task for task in tasks if task.version > 1 or task.created_at < now)
