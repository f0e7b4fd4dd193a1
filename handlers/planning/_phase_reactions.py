"""What follows in the same transaction from tasks, phases and reviews that are done."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.planning.initiatives import InitiativeChangesRequested, InitiativePendingReview
from contracts.planning.phases import (
    CreatePhase,
    Phase,
    PhaseChangesRequested,
    PhaseCompleted,
    PhaseCreated,
    PhaseDispatchable,
    PhasePendingReview,
)
from contracts.planning.tasks import TaskCompleted, TaskCreated, TaskUpdated
from handlers._shapes import Emit, reaction
from handlers.planning._phase_rules import FINALIZATION, new_phase, place_after, review_task
from persistence._entities import add, load, save
from persistence.planning import _phase_graph, initiatives, phases


def _in_a_phase(event: TaskCompleted) -> bool:
    return event.task.phase_id is not None


@reaction(about=_in_a_phase)
async def finish_phases(
    events: Sequence[TaskCompleted], *, db: AsyncConnection, emit: Emit, now: datetime
) -> None:
    """A phase in progress whose tasks are all completed waits for its review, or is completed."""
    ids = {event.task.phase_id for event in events if event.task.phase_id is not None}
    # Locked before the tasks are counted, in a statement of its own: two transactions that
    # complete the last two tasks at once take turns, and the second sees what the first did.
    in_progress = await phases.lock_in_progress(db, ids)
    if not in_progress:
        return
    modes = await phases.finished(db, in_progress)
    if not modes:
        return
    done = {"yolo": "completed", "review_per_phase": "pending_review"}
    finished = [
        phase.evolve(now, status=done[modes[id_]])
        for id_, phase in (await load(db, Phase, modes)).items()
    ]

    await save(db, finished)
    for phase in finished:
        tell = PhaseCompleted if phase.status == "completed" else PhasePendingReview
        emit(tell(phase=phase, previous_status="in_progress"))


@reaction
async def finish_initiatives(
    events: Sequence[PhaseCompleted], *, db: AsyncConnection, emit: Emit, now: datetime
) -> None:
    """An active initiative whose phases are all completed waits for its review."""
    active = await initiatives.lock_active(db, {event.phase.initiative_id for event in events})
    if not active:
        return
    unfinished = await initiatives.unfinished(db, [initiative.id for initiative in active])
    finished = [
        initiative.evolve(now, status="pending_review")
        for initiative in active
        if initiative.id not in unfinished
    ]

    await save(db, finished)
    for initiative in finished:
        emit(InitiativePendingReview(initiative=initiative, previous_status="active"))


@reaction
async def tell_dispatchable_phases(
    events: Sequence[PhaseCompleted], *, db: AsyncConnection, emit: Emit
) -> None:
    """An approved phase can be started once the last phase that it waited for is completed."""
    approved = await phases.lock_approved_dependents(db, {event.phase.id for event in events})
    if not approved:
        return
    waiting = await _phase_graph.waiting(db, [phase.id for phase in approved])

    for phase in approved:
        if phase.id not in waiting:
            emit(PhaseDispatchable(phase=phase))


@reaction
async def take_up_finalization(
    events: Sequence[InitiativeChangesRequested], *, db: AsyncConnection, emit: Emit, now: datetime
) -> None:
    """Changes that an initiative needs are made in its phase "Finalization"."""
    asked = {event.initiative.id: event.summary for event in events}
    found = await phases.lock_named(db, asked, FINALIZATION)
    known = {phase.initiative_id: phase for phase in reversed(found)}
    missing = [id_ for id_ in asked if id_ not in known]
    last = await phases.last_positions(db, missing) if missing else {}
    fresh = await phases.fresh_ids(db, len(missing))
    made = {
        id_: new_phase(
            CreatePhase(initiative_id=id_, name=FINALIZATION),
            id_=phase_id,
            position=place_after(last.get(id_)),
            now=now,
        )
        for id_, phase_id in zip(missing, fresh, strict=True)
    }
    before = known | made
    after = {
        id_: phase.evolve(now, status="in_progress", status_before=None, blocked_reason=None)
        for id_, phase in before.items()
    }

    await add(db, [after[id_] for id_ in made])
    await save(db, [after[id_] for id_ in known])
    for id_, summary in asked.items():
        if id_ in made:
            emit(PhaseCreated(phase=made[id_]))
        emit(
            PhaseChangesRequested(
                phase=after[id_], previous_status=before[id_].status, summary=summary
            )
        )


@reaction
async def add_review_tasks(
    events: Sequence[PhaseChangesRequested], *, db: AsyncConnection, emit: Emit, now: datetime
) -> None:
    """Changes that a phase needs are its review task; one is open at most."""
    asked = {event.phase.id: event for event in events}
    reviews = await phases.lock_open_reviews(db, asked)
    updated = [
        task.evolve(now, description=asked[phase_id].summary) for phase_id, task in reviews.items()
    ]
    missing = [event for phase_id, event in asked.items() if phase_id not in reviews]
    fresh = await phases.fresh_ids(db, len(missing))
    created = [
        review_task(id_, event.phase, event.summary, now)
        for id_, event in zip(fresh, missing, strict=True)
    ]

    await save(db, updated)
    await add(db, created)
    for task in updated:
        emit(TaskUpdated(task=task))
    for task in created:
        emit(TaskCreated(task=task))
