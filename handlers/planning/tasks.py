"""What happens to tasks."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import InvalidReference, Refusal
from bus.handling import Decision, Emit, carry_out, changes, decider, emit_all, handler, query
from bus.storage import entities as _entities
from bus.storage import lock_for_deletion
from contracts.planning.initiatives import Initiative
from contracts.planning.phases import Phase
from contracts.planning.tasks import (
    AcceptLateResult,
    AddTaskDependency,
    BlockTask,
    ClaimedTasks,
    ClaimTasks,
    CompleteTask,
    CreateManyTasks,
    CreateTask,
    DeleteTask,
    DependencyNotFound,
    DifferentInitiatives,
    GetTaskContext,
    GetTaskQueue,
    NewTaskRef,
    NewTasks,
    ReleaseTask,
    RemoveTaskDependency,
    RenewTask,
    RetryTask,
    Task,
    TaskBlocked,
    TaskClaimed,
    TaskCompleted,
    TaskContext,
    TaskCreated,
    TaskDeletion,
    TaskDependencyAdded,
    TaskDependencyRemoved,
    TaskQueue,
    TaskReleased,
    TaskRetried,
    TaskUpdated,
    UpdateTask,
)
from handlers.planning._task_dependencies import delete_tree, lock_ends
from handlers.planning._task_late_results import evolve, keep_late_result, take_late_result
from handlers.planning._task_order import of_task, refuse_circles, refuse_self_and_elsewhere
from handlers.planning._task_plan import build, plan, refuse_circles_over_phases
from handlers.planning._task_shortening import shorten
from handlers.planning.states import TASK
from handlers.planning.task_claims import (
    Assignment,
    alike,
    assign,
    refuse_in_vain,
    refuse_unknown,
    take_first,
    take_ready,
)
from handlers.planning.task_rules import (
    UNCLAIMED,
    is_over,
    new_task,
    require_attempt,
)
from persistence.planning import task_context as _task_context
from persistence.planning import task_creation as _task_creation
from persistence.planning import tasks
from persistence.planning.task_graph import TASK_GRAPH


@decider
def create_task(
    command: CreateTask,
    phase: Phase | None,
    initiative: Initiative | None,
    parent_task: Task | None,
    *,
    new_id: UUID,
    now: datetime,
) -> Decision[Task]:
    task = new_task(command, phase, initiative, parent_task, id_=new_id, now=now)

    return Decision(task, TaskCreated(task=task))


@handler
async def create_many_tasks(
    command: CreateManyTasks, *, db: AsyncConnection, emit: Emit, new_id: UUID, now: datetime
) -> NewTasks:
    planned = plan(command.items, new_id)
    made = await build(db, planned, now=now)

    created = [
        Decision(task, TaskCreated(task=task, depends_on=list(one.depends_on)))
        for one, task in zip(planned, made, strict=True)
    ]
    await carry_out(created, db=db, emit=emit, new=True)
    if related := [one for one in planned if one.depends_on or one.parent_id is not None]:
        pairs = ((one.id, other) for one in related for other in one.depends_on)
        await _task_creation.relate(db, [one.id for one in related], pairs)
    await refuse_circles_over_phases(db, planned, made)

    return NewTasks(items=[NewTaskRef(ref=one.item.ref, id=one.id) for one in planned])


@query
async def get_task_context(query: GetTaskContext, *, db: AsyncConnection, room: int) -> TaskContext:
    return shorten(await _task_context.with_context(db, query.id), room)


@query
async def get_task_queue(query: GetTaskQueue, *, db: AsyncConnection) -> TaskQueue:
    queue = await tasks.count_queue(db, query.initiative_id)
    if not any(queue.model_dump().values()):
        await refuse_unknown(db, initiative_id=query.initiative_id)

    return queue


@decider
def update_task(
    command: UpdateTask, task: Task, phase: Phase | None, *, now: datetime
) -> Decision[Task]:
    task.expect(command.expected_version)
    if phase is not None and phase.initiative_id != task.initiative_id:
        raise DifferentInitiatives(entity="task", id=task.id, other_id=phase.id)
    if not (changed := changes(command, task)):
        return Decision.unchanged(task)

    updated = evolve(task, now, **changed)

    return Decision(updated, TaskUpdated(task=updated, moved="phase_id" in changed))


@handler
async def delete_task(
    command: DeleteTask, *, db: AsyncConnection, emit: Emit, now: datetime
) -> TaskDeletion:
    task = await lock_for_deletion(db, Task, command.id)

    deleted, freed = await delete_tree(db, task, now=now)

    emit_all([deleted, *freed], emit=emit)

    return TaskDeletion(id=task.id, deleted=deleted.deleted)


@handler
async def add_task_dependency(
    command: AddTaskDependency, *, db: AsyncConnection, emit: Emit, now: datetime
) -> Task:
    task, other = await lock_ends(db, command)
    if other is None:
        raise InvalidReference(field="depends_on_task_id", entity="task")
    TASK.require(task, "add_dependency")
    refuse_self_and_elsewhere("task", task, other)

    changed = task.evolve(now)
    await TASK_GRAPH.add(db, [(task.id, other.id)])
    await refuse_circles(db, "task", of_task(task))
    await _entities.save(db, [changed])

    emit(TaskDependencyAdded(task=changed, depends_on_task_id=other.id))

    return changed


@handler
async def remove_task_dependency(
    command: RemoveTaskDependency, *, db: AsyncConnection, emit: Emit, now: datetime
) -> Task:
    task, _ = await lock_ends(db, command)
    if not await TASK_GRAPH.remove(db, task.id, command.depends_on_task_id):
        raise DependencyNotFound(id=task.id, depends_on=command.depends_on_task_id)

    changed = task.evolve(now)
    await _entities.save(db, [changed])

    emit(TaskDependencyRemoved(task=changed, depends_on_task_id=command.depends_on_task_id))

    return changed


@handler
async def claim_tasks(
    commands: Sequence[ClaimTasks],
    *,
    db: AsyncConnection,
    emits: Sequence[Emit],
    now: datetime,
    room: int,
) -> list[ClaimedTasks | Refusal]:
    """Claims with the same filters share what is ready, in the order in which they came."""
    if len(commands) == 1 and commands[0].limit == 1:
        first = await take_first(db, commands[0], now)
        if first is not None:
            emits[0](TaskClaimed(task=first.task, incarnation=commands[0].incarnation))
            return [ClaimedTasks(tasks=[shorten(first, room)])]

    assigned: dict[int, list[Assignment]] = {}
    for places in alike(commands):
        together = [commands[place] for place in places]
        limit = sum(claim.limit for claim in together)
        given = [one.task.id for several in assigned.values() for one in several]
        taken = await take_ready(db, together[0], limit=limit, besides=given)
        assigned |= zip(places, assign(together, taken, now, room), strict=True)

    await _entities.save(db, [one.task for several in assigned.values() for one in several])

    for place, claim in enumerate(commands):
        for one in assigned[place]:
            emits[place](TaskClaimed(task=one.task, incarnation=claim.incarnation))

    vain = [place for place in range(len(commands)) if not assigned[place]]
    refused = await refuse_in_vain(db, [commands[place] for place in vain])
    refusals = dict(zip(vain, refused, strict=True))

    return [
        refusals.get(place) or ClaimedTasks(tasks=[one.reply for one in assigned[place]])
        for place in range(len(commands))
    ]


@decider
def renew_task(command: RenewTask, task: Task, *, now: datetime) -> Decision[Task]:
    require_attempt(task, command.attempt, "renew")

    until = now + timedelta(seconds=command.lease_seconds)

    kept = {"lease_expires_at": until, "lease_seconds": command.lease_seconds}

    return Decision(task.model_copy(update=kept))


@decider
def release_task(command: ReleaseTask, task: Task, *, now: datetime) -> Decision[Task]:
    require_attempt(task, command.attempt, "release")

    released = task.evolve(now, status="pending", **UNCLAIMED)

    return Decision(
        released,
        TaskReleased(task=released, released_by=task.claimed_by, reason=command.reason),
    )


@decider
def complete_task(command: CompleteTask, task: Task, *, now: datetime) -> Decision[Task]:
    if command.attempt is not None and is_over(task, command.attempt):
        return keep_late_result(command, task, now)
    TASK.require(task, "complete")

    done = evolve(
        task, now, status="completed", summary=command.summary, result=command.result, **UNCLAIMED
    )

    return Decision(done, TaskCompleted(task=done, previous_status=task.status))


@decider
def block_task(command: BlockTask, task: Task, *, now: datetime) -> Decision[Task]:
    if command.attempt is not None:
        require_attempt(task, command.attempt, "block")
    TASK.require(task, "block")

    blocked = evolve(task, now, status="blocked", blocked_reason=command.reason, **UNCLAIMED)

    return Decision(blocked, TaskBlocked(task=blocked, previous_status=task.status))


@decider
def retry_task(
    command: RetryTask,  # noqa: ARG001  the id has been used to find it
    task: Task,
    *,
    now: datetime,
) -> Decision[Task]:
    TASK.require(task, "retry")

    retried = task.evolve(now, status="pending", retry_count=0, blocked_reason=None)

    return Decision(retried, TaskRetried(task=retried))


@decider
def accept_late_result(command: AcceptLateResult, task: Task, *, now: datetime) -> Decision[Task]:
    TASK.require(task, "accept_late")

    return take_late_result(command, task, now)
