"""Who gets which task, and what an agent is given to begin."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.errors import InvalidReference
from contracts.planning.initiatives import Initiative
from contracts.planning.phases import Phase
from contracts.planning.tasks import ClaimedTask, ClaimTasks, Task
from handlers.planning._states import TASK
from persistence.planning import tasks
from persistence.planning._task_context import ready_with_context

ROUNDS = 4
"""How often a claim looks again for tasks in place of some that were ready no longer."""

REPLY_BYTES = 768 * 1024
"""What the tasks of one claim may take up of a message (1 MiB by default)."""


async def take_ready(db: AsyncConnection, claim: ClaimTasks) -> list[ClaimedTask]:
    """Lock up to ``limit`` ready tasks, in order, as many as fit into one reply."""
    taken: dict[UUID, ClaimedTask] = {}
    seen: list[UUID] = []
    for _ in range(ROUNDS):
        wanted = claim.limit - len(taken)
        locked = await tasks.lock_ready(db, claim, limit=wanted, besides=seen)
        if not locked:
            break
        # A dependency may have been added after the snapshot in which these were ready. Now that
        # they are locked, nobody can add one; what a new snapshot says remains true.
        ready = await ready_with_context(db, locked)
        taken |= {id_: ready[id_] for id_ in locked if id_ in ready}
        if len(taken) == claim.limit or len(locked) < wanted:
            break
        seen += locked
    return _fitting(taken.values())


def claimed(task: Task, claim: ClaimTasks, now: datetime) -> Task:
    """The task as it is in the hands of who claims it."""
    TASK.require(task, "claim")
    return task.evolve(
        now,
        status="in_progress",
        claimed_by=claim.agent_id,
        attempt=task.attempt + 1,
        lease_expires_at=now + timedelta(seconds=claim.lease_seconds),
    )


async def refuse_unknown(
    db: AsyncConnection, *, initiative_id: UUID | None = None, phase_id: UUID | None = None
) -> None:
    """Tell a name that does not exist from one that has nothing to offer."""
    if initiative_id is not None and not await tasks.exists_one(db, Initiative, initiative_id):
        raise InvalidReference(field="initiative_id", entity="initiative")
    if phase_id is not None and not await tasks.exists_one(db, Phase, phase_id):
        raise InvalidReference(field="phase_id", entity="phase")


def _fitting(found: Iterable[ClaimedTask]) -> list[ClaimedTask]:
    """The first of these that fit into a reply, one at least: none may hold up the queue."""
    fitting: list[ClaimedTask] = []
    left = REPLY_BYTES
    for item in found:
        left -= len(item.model_dump_json().encode())
        if left < 0:
            return fitting or [_without_context(item)]
        fitting.append(item)
    return fitting


def _without_context(item: ClaimedTask) -> ClaimedTask:
    phase = item.phase and item.phase.model_copy(update={"content": None})
    brief = [other.model_copy(update={"summary": None}) for other in item.dependencies]
    return item.model_copy(update={"phase": phase, "dependencies": brief})
