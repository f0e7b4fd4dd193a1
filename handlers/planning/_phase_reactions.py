"""What follows in the same transaction from phases and reviews; see also ``_containers.py``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.handling import Emit, reaction
from bus.storage import add, save
from contracts.planning.initiatives import InitiativeChangesRequested
from contracts.planning.phases import (
    CreatePhase,
    PhaseApproved,
    PhaseChangesRequested,
    PhaseCompleted,
    PhaseCreated,
    PhaseDispatchable,
    PhaseUnblocked,
)
from contracts.planning.tasks import TaskCreated, TaskUpdated
from handlers.planning._phase_dependencies import tell_dispatchable
from handlers.planning._phase_rules import FINALIZATION, new_phase, place_after, review_task
from persistence.planning import phases


@reaction(emits=(PhaseDispatchable,))
async def tell_dispatchable_dependents(
    events: Sequence[PhaseCompleted], *, db: AsyncConnection, emit: Emit
) -> None:
    """An approved phase can be started once the last phase that it waited for is completed.

    Dependents are locked in any status: if one is approved meanwhile, the event is emitted once, by
    the transaction that comes second.
    """
    completed = {event.phase.id for event in events}
    locked = await phases.lock_dependents(db, completed)
    await tell_dispatchable(locked, db=db, emit=emit, needing=completed)


def _approved(event: PhaseApproved | PhaseUnblocked) -> bool:
    return event.phase.status == "approved"


@reaction(about=_approved, emits=(PhaseDispatchable,))
async def tell_dispatchable_phases(
    events: Sequence[PhaseApproved | PhaseUnblocked], *, db: AsyncConnection, emit: Emit
) -> None:
    """A phase that is approved, or is so again, can be started if it waits for no other."""
    await tell_dispatchable({event.phase.id for event in events}, db=db, emit=emit)


@reaction(emits=(PhaseCreated, PhaseChangesRequested))
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


@reaction(emits=(TaskUpdated, TaskCreated))
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
