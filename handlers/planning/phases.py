"""What happens to phases; what follows from it lies in ``_phase_reactions.py``."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import InvalidReference
from bus.handling import Decision, Emit, carry_out, changes, decider, emit_all, handler
from bus.storage import add, get, get_locked, load, lock, lock_for_deletion, remove, save
from contracts.planning.initiatives import Initiative
from contracts.planning.phases import (
    AddPhaseDependency,
    ApprovePhase,
    ApprovePhaseReview,
    BlockPhase,
    CompletePhase,
    CreatePhase,
    DeletePhase,
    DependenciesOpen,
    Phase,
    PhaseApproved,
    PhaseBlocked,
    PhaseChangesRequested,
    PhaseCompleted,
    PhaseCreated,
    PhaseDeleted,
    PhaseDeletion,
    PhaseSequence,
    PhaseStarted,
    PhaseUnblocked,
    PhaseUpdated,
    RemovePhaseDependency,
    ReorderPhases,
    RequestPhaseChanges,
    StartPhase,
    UnblockPhase,
    UpdatePhase,
)
from contracts.planning.tasks import DependencyNotFound
from handlers.planning._phase_dependencies import emit_dispatchable
from handlers.planning._phase_rules import initiative_of, new_phase, place_after
from handlers.planning._task_dependencies import let_go
from handlers.planning._task_order import of_phase, refuse_circles, refuse_self_and_elsewhere
from handlers.planning.states import PHASE
from persistence.planning import phases
from persistence.planning import task_trees as _task_trees
from persistence.planning.phase_graph import PHASE_GRAPH
from persistence.planning.task_order import ORDER


@handler
async def create_phase(
    command: CreatePhase, *, db: AsyncConnection, emit: Emit, now: datetime, new_id: UUID
) -> Phase:
    initiative_id, position = command.initiative_id, command.position
    if initiative_id not in await lock(db, Initiative, [initiative_id]):
        raise InvalidReference(field="initiative_id", entity="initiative")
    if position is None:
        last = await phases.last_positions(db, [initiative_id])
        position = place_after(last.get(initiative_id))

    phase = new_phase(command, id_=new_id, position=position, now=now)
    await add(db, [phase])
    emit(PhaseCreated(phase=phase))

    return phase


@decider
def update_phase(command: UpdatePhase, phase: Phase, *, now: datetime) -> Decision[Phase]:
    phase.expect(command.expected_version)
    if not (changed := changes(command, phase)):
        return Decision.unchanged(phase)

    updated = phase.evolve(now, **changed)

    return Decision(updated, PhaseUpdated(phase=updated))


@handler
async def reorder_phases(
    command: ReorderPhases, *, db: AsyncConnection, emit: Emit, now: datetime
) -> PhaseSequence:
    named = await load(db, Phase, command.ids)
    initiative_id = initiative_of(command.ids, named)
    known = await phases.lock_all(db, initiative_id)
    places = {id_: place for place, id_ in enumerate(command.ids)}
    ordered = sorted(known, key=lambda phase: places.get(phase.id, len(places)))
    moved = [
        phase.evolve(now, position=position)
        for position, phase in enumerate(ordered, start=1)
        if phase.position != position
    ]

    decisions = [Decision(phase, PhaseUpdated(phase=phase)) for phase in moved]
    await carry_out(decisions, db=db, emit=emit)

    return PhaseSequence(ids=[phase.id for phase in ordered], moved=[phase.id for phase in moved])


@decider
def approve_phase(
    command: ApprovePhase,  # noqa: ARG001  the id has been used to find it
    phase: Phase,
    *,
    now: datetime,
) -> Decision[Phase]:
    PHASE.require(phase, "approve")

    approved = phase.evolve(now, status="approved")

    return Decision(approved, PhaseApproved(phase=approved, previous_status=phase.status))


@handler
async def start_phase(
    command: StartPhase, *, db: AsyncConnection, emit: Emit, now: datetime
) -> Phase:
    phase = await get_locked(db, Phase, command.id)
    PHASE.require(phase, "start")
    if waits_for := await PHASE_GRAPH.unfinished(db, phase.id, "position"):
        raise DependenciesOpen(id=phase.id, open=waits_for)

    started = phase.evolve(now, status="in_progress")
    await save(db, [started])
    emit(PhaseStarted(phase=started, previous_status=phase.status))

    return started


@decider
def block_phase(command: BlockPhase, phase: Phase, *, now: datetime) -> Decision[Phase]:
    PHASE.require(phase, "block")

    blocked = phase.evolve(
        now, status="blocked", status_before=phase.status, blocked_reason=command.reason
    )

    return Decision(blocked, PhaseBlocked(phase=blocked, previous_status=phase.status))


@decider
def unblock_phase(
    command: UnblockPhase,  # noqa: ARG001  the id has been used to find it
    phase: Phase,
    *,
    now: datetime,
) -> Decision[Phase]:
    PHASE.require(phase, "unblock")

    status = phase.status_before or "pending"
    back = phase.evolve(now, status=status, status_before=None, blocked_reason=None)

    return Decision(back, PhaseUnblocked(phase=back, previous_status=phase.status))


@decider
def complete_phase(
    command: CompletePhase,  # noqa: ARG001  the id has been used to find it
    phase: Phase,
    *,
    now: datetime,
) -> Decision[Phase]:
    PHASE.require(phase, "complete")

    completed = phase.evolve(now, status="completed")

    return Decision(completed, PhaseCompleted(phase=completed, previous_status=phase.status))


@decider
def approve_phase_review(
    command: ApprovePhaseReview, phase: Phase, *, now: datetime
) -> Decision[Phase]:
    PHASE.require(phase, "approve_review")

    merge_base = command.merge_base or phase.merge_base
    completed = phase.evolve(now, status="completed", merge_base=merge_base)

    return Decision(completed, PhaseCompleted(phase=completed, previous_status=phase.status))


@decider
def request_phase_changes(
    command: RequestPhaseChanges, phase: Phase, *, now: datetime
) -> Decision[Phase]:
    PHASE.require(phase, "request_changes")

    back = phase.evolve(now, status="in_progress")

    return Decision(
        back,
        PhaseChangesRequested(phase=back, previous_status=phase.status, summary=command.summary),
    )


@handler
async def add_phase_dependency(
    command: AddPhaseDependency, *, db: AsyncConnection, emit: Emit, now: datetime
) -> Phase:
    initiative_id = (await get(db, Phase, command.id)).initiative_id
    await ORDER.lock(db, initiative_id)
    phase = await get_locked(db, Phase, command.id)
    other = (await load(db, Phase, [command.depends_on_phase_id])).get(command.depends_on_phase_id)
    if other is None:
        raise InvalidReference(field="depends_on_phase_id", entity="phase")
    refuse_self_and_elsewhere("phase", phase, other)

    await PHASE_GRAPH.add(db, [(phase.id, other.id)])
    await refuse_circles(db, "phase", of_phase(phase))
    changed = phase.evolve(now)
    await save(db, [changed])
    emit(PhaseUpdated(phase=changed))

    return changed


@handler
async def remove_phase_dependency(
    command: RemovePhaseDependency, *, db: AsyncConnection, emit: Emit, now: datetime
) -> Phase:
    phase = await get_locked(db, Phase, command.id)
    if not await PHASE_GRAPH.remove(db, phase.id, command.depends_on_phase_id):
        raise DependencyNotFound(id=phase.id, depends_on=command.depends_on_phase_id)

    needed = await get(db, Phase, command.depends_on_phase_id)
    changed = phase.evolve(now)
    await save(db, [changed])
    emit(PhaseUpdated(phase=changed))
    if needed.status != "completed":
        await emit_dispatchable([phase.id], db=db, emit=emit)

    return changed


@handler
async def delete_phase(
    command: DeletePhase, *, db: AsyncConnection, emit: Emit, now: datetime
) -> PhaseDeletion:
    await ORDER.lock(db, (await get(db, Phase, command.id)).initiative_id)
    phase = await lock_for_deletion(db, Phase, command.id)
    deleted, task_ids = await phases.contents(db, phase)
    dependents = await lock(db, Phase, await PHASE_GRAPH.lock_dependents(db, [phase.id]))
    tree = await _task_trees.lock_trees(db, await phases.tasks_in(db, phase.id))
    let_go_of = await let_go(db, tree, now=now)

    await remove(db, phase)
    emit(PhaseDeleted(phase=phase.evolve(now), deleted=deleted, task_ids=task_ids))
    freed = [dependent.evolve(now) for dependent in dependents.values()]
    decisions = [Decision(dependent, PhaseUpdated(phase=dependent)) for dependent in freed]
    await carry_out(decisions, db=db, emit=emit)
    if phase.status != "completed":
        await emit_dispatchable(dependents, db=db, emit=emit)
    emit_all(let_go_of, emit=emit)

    return PhaseDeletion(id=phase.id, deleted=deleted)
