"""What a phase or an initiative is, given what it holds: one rule, asked after every change."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.handling import Decision, Emit, carry_out, reaction
from bus.storage import load, lock
from contracts.planning.initiatives import (
    ExecutionMode,
    Initiative,
    InitiativePendingReview,
    InitiativeReopened,
    InitiativeStatus,
    InitiativeUnarchived,
)
from contracts.planning.phases import (
    Phase,
    PhaseCompleted,
    PhaseCreated,
    PhaseDeleted,
    PhasePendingReview,
    PhaseStarted,
    PhaseStatus,
    PhaseUnblocked,
)
from contracts.planning.tasks import (
    InitiativeClosed,
    TaskCompleted,
    TaskCreated,
    TaskDeleted,
    TaskRetried,
    TaskUpdated,
)
from persistence.planning import task_containers as _task_containers
from persistence.planning.task_containers import Children, FoundPhase

OVER = {"pending_review", "completed"}
"""What is over until it gets something to do."""


_PHASE_SETTLED = (PhaseCompleted, PhasePendingReview, PhaseStarted)
_INITIATIVE_SETTLED = (InitiativePendingReview, InitiativeReopened)
_SETTLED = (*_PHASE_SETTLED, *_INITIATIVE_SETTLED)


def phase_status(status: PhaseStatus, mode: ExecutionMode, tasks: Children) -> PhaseStatus:
    """What a phase is, given its tasks; one without any waits for some, or to be completed."""
    if status == "in_progress" and tasks.any and not tasks.open:
        return "completed" if mode == "yolo" else "pending_review"
    if status == "pending_review" and tasks.open:
        return "in_progress"
    return status


def initiative_status(status: InitiativeStatus, children: Children) -> InitiativeStatus:
    """What an initiative is, given its phases and all its tasks, in phases or not."""
    if status == "active" and children.any and not children.open:
        return "pending_review"
    if status in OVER and children.open:
        return "active"
    return status


def _in_an_initiative(event: TaskCompleted) -> bool:
    return event.task.initiative_id is not None or event.task.phase_id is not None


@reaction(about=_in_an_initiative, where=_task_containers.MAY_BE_OVER, emits=_SETTLED)
async def finish_phases(
    events: Sequence[TaskCompleted], *, db: AsyncConnection, emit: Emit, now: datetime
) -> None:
    """What the last task of a phase or of an initiative makes of it."""
    asked = await _task_containers.may_be_over(db, [event.task.id for event in events])
    phases = await _task_containers.look_at_phases(db, asked.phases)
    await _settle_phases(phases, db=db, emit=emit, now=now)

    # Tasks may be left in a phase that somebody completed: they keep the initiative open alone.
    left = {phase.initiative_id for phase in phases if phase.status == "completed"}
    await _settle_initiatives(asked.initiatives | left, db=db, emit=emit, now=now)


def _concerns_all(event: TaskCreated | TaskUpdated | TaskDeleted | PhaseDeleted) -> bool:
    match event:
        case TaskCreated():
            return event.task.status == "completed" and event.task.initiative_id is not None
        case TaskUpdated():
            return event.moved
        case TaskDeleted():
            return event.task.initiative_id is not None
    return True


@reaction(about=_concerns_all, emits=_SETTLED)
async def settle_all(
    events: Sequence[TaskCreated | TaskUpdated | TaskDeleted | PhaseDeleted],
    *,
    db: AsyncConnection,
    emit: Emit,
    now: datetime,
) -> None:
    """Tasks that came, went away or moved, with those below them, may be of many phases."""
    ids = {
        event.phase.initiative_id if isinstance(event, PhaseDeleted) else event.task.initiative_id
        for event in events
    }
    initiatives = {id_ for id_ in ids if id_ is not None}
    phases = await _task_containers.look_at_phases_of(db, initiatives)
    await _settle_phases(phases, db=db, emit=emit, now=now)

    await _settle_initiatives(initiatives, db=db, emit=emit, now=now)


@reaction(emits=_PHASE_SETTLED)
async def settle_phases(
    events: Sequence[PhaseStarted | PhaseUnblocked],
    *,
    db: AsyncConnection,
    emit: Emit,
    now: datetime,
) -> None:
    """What the tasks of a phase are may have changed before it was in progress."""
    phases = await _task_containers.look_at_phases(db, {event.phase.id for event in events})

    await _settle_phases(phases, db=db, emit=emit, now=now)


def _may_end_it(event: PhaseCompleted | PhaseCreated | InitiativeUnarchived) -> bool:
    return not isinstance(event, PhaseCreated) or event.phase.status == "completed"


@reaction(about=_may_end_it, emits=_INITIATIVE_SETTLED)
async def finish_initiatives(
    events: Sequence[PhaseCompleted | PhaseCreated | InitiativeUnarchived],
    *,
    db: AsyncConnection,
    emit: Emit,
    now: datetime,
) -> None:
    """What the last phase of an initiative makes of it, or what happened while it was archived."""
    ids = {
        event.initiative.id
        if isinstance(event, InitiativeUnarchived)
        else event.phase.initiative_id
        for event in events
    }

    await _settle_initiatives(ids, db=db, emit=emit, now=now)


Adding = TaskCreated | TaskRetried | TaskUpdated | PhaseCreated


def _adds_work(event: Adding) -> bool:
    match event:
        case PhaseCreated():
            return event.phase.status != "completed"
        case TaskCreated():
            return event.task.status != "completed" and event.task.initiative_id is not None
        case TaskRetried():
            # By a person: retries are counted from the beginning.
            return event.task.retry_count == 0 and event.task.initiative_id is not None
        case TaskUpdated():
            return event.moved


def _containers_of(event: Adding) -> Iterable[UUID]:
    if isinstance(event, PhaseCreated):
        return [event.phase.initiative_id]
    task = event.task
    within = (task.phase_id or task.parent_task_id, task.initiative_id)
    return [id_ for id_ in within if id_ is not None]


@reaction(
    about=_adds_work,
    where=_task_containers.IS_OVER,
    of=_containers_of,
    emits=(PhaseStarted, InitiativeReopened),
)
async def take_up_again(
    events: Sequence[TaskCreated | TaskRetried | TaskUpdated | PhaseCreated],
    *,
    db: AsyncConnection,
    emit: Emit,
    now: datetime,
) -> None:
    """What is over and gets something to do is taken up again; what is archived gets nothing."""
    moved = [event.task.id for event in events if isinstance(event, TaskUpdated)]
    idle = set(moved) - await _task_containers.with_work(db, moved) if moved else set()
    adding = [e for e in events if isinstance(e, PhaseCreated) or e.task.id not in idle]
    over = await _task_containers.over(
        db, {id_ for event in adding for id_ in _containers_of(event)}
    )
    phases = await lock(db, Phase, over.phases) if over.phases else {}
    initiatives = await lock(db, Initiative, over.initiatives) if over.initiatives else {}
    for initiative in initiatives.values():
        if initiative.status == "archived":
            raise InitiativeClosed(id=initiative.id, initiative_status=initiative.status)

    begun = [
        _settled_phase(phase, "in_progress", now)
        for phase in phases.values()
        if phase.status in OVER
    ]
    active = [
        _settled_initiative(initiative, "active", now)
        for initiative in initiatives.values()
        if initiative.status in OVER
    ]
    await carry_out([*begun, *active], db=db, emit=emit)


async def _settle_phases(
    found: Sequence[FoundPhase], *, db: AsyncConnection, emit: Emit, now: datetime
) -> None:
    """Let these locked phases be what their tasks make of them."""
    become = {
        phase.id: status
        for phase in found
        if (status := phase_status(phase.status, phase.mode, phase.tasks)) != phase.status
    }
    # What is gone by now has no use for it; the transaction fails on account of that at its end.
    before = await load(db, Phase, become) if become else {}

    decisions = [_settled_phase(before[id_], become[id_], now) for id_ in become if id_ in before]
    await carry_out(decisions, db=db, emit=emit)


async def _settle_initiatives(
    ids: Iterable[UUID], *, db: AsyncConnection, emit: Emit, now: datetime
) -> None:
    """Let these initiatives be what their phases and tasks make of them."""
    found = await _task_containers.look_at_initiatives(db, ids) if ids else []
    become = {
        one.id: status
        for one in found
        if (status := initiative_status(one.status, one.children)) != one.status
    }
    before = await load(db, Initiative, become) if become else {}

    decisions = [
        _settled_initiative(before[id_], become[id_], now) for id_ in become if id_ in before
    ]
    await carry_out(decisions, db=db, emit=emit)


def _settled_phase(phase: Phase, status: PhaseStatus, now: datetime) -> Decision[Phase]:
    settled = phase.evolve(now, status=status)
    event: type[PhaseCompleted | PhasePendingReview | PhaseStarted] = PhaseStarted
    if status == "completed":
        event = PhaseCompleted
    elif status == "pending_review":
        event = PhasePendingReview

    return Decision(settled, event(phase=settled, previous_status=phase.status))


def _settled_initiative(
    initiative: Initiative, status: InitiativeStatus, now: datetime
) -> Decision[Initiative]:
    settled = initiative.evolve(now, status=status)
    event = InitiativeReopened if status == "active" else InitiativePendingReview

    return Decision(settled, event(initiative=settled, previous_status=initiative.status))
