"""Who gets which task, and what an agent is given to begin."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
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


async def take_ready(
    db: AsyncConnection, filters: ClaimTasks, *, limit: int, besides: Iterable[UUID]
) -> dict[UUID, ClaimedTask]:
    """Lock up to ``limit`` tasks that are ready and pass the filters of a claim, in order.

    ``besides`` are those that this transaction has dealt already: its own locks do not stop it.
    """
    taken: dict[UUID, ClaimedTask] = {}
    seen = list(besides)
    for _ in range(ROUNDS):
        wanted = limit - len(taken)
        locked = await tasks.lock_ready(db, filters, limit=wanted, besides=seen)
        if not locked:
            break
        # A dependency may have been added after the snapshot in which these were ready. Now that
        # they are locked, nobody can add one; what a new snapshot says remains true.
        ready = await ready_with_context(db, locked)
        taken |= {id_: ready[id_] for id_ in locked if id_ in ready}
        if len(taken) == limit or len(locked) < wanted:
            break
        seen += locked
    return taken


def deal(claims: Sequence[ClaimTasks], taken: Iterable[ClaimedTask]) -> list[list[ClaimedTask]]:
    """What each claim gets of what was taken for all: in turn, as many as fit into one reply."""
    left = deque(taken)
    dealt = []
    for claim in claims:
        fitting = _fitting([left[n] for n in range(min(claim.limit, len(left)))])
        for _ in fitting:
            left.popleft()
        dealt.append(fitting)
    return dealt


def alike(claims: Sequence[ClaimTasks]) -> list[list[int]]:
    """The places of the claims that have the same filters, together."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for place, claim in enumerate(claims):
        filters = (claim.initiative_id, claim.phase_id, *sorted(claim.categories))
        groups.setdefault(filters, []).append(place)
    return list(groups.values())


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


async def unknown_filter(db: AsyncConnection, claim: ClaimTasks) -> InvalidReference | None:
    """The refusal of a claim that found nothing because what it names does not exist."""
    try:
        await refuse_unknown(db, initiative_id=claim.initiative_id, phase_id=claim.phase_id)
    except InvalidReference as refusal:
        return refusal
    return None


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
