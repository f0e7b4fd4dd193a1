"""Who gets which task, and what an agent is given to begin."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from contracts._errors import Refusal
from contracts.errors import InvalidReference
from contracts.planning.initiatives import Initiative
from contracts.planning.phases import Phase
from contracts.planning.tasks import ClaimedTask, ClaimTasks, Task
from handlers.planning._states import TASK
from persistence.planning import _claims, tasks

ROUNDS = 4
"""How often a claim looks where tasks change under its eyes."""

REPLY_BYTES = 768 * 1024
"""What the tasks of one claim may take up of a message (1 MiB by default)."""


Guard = Callable[[AsyncConnection, Sequence[ClaimTasks]], Awaitable[Sequence[Refusal | None]]]

_GUARDS: list[Guard] = []


def claim_guard(guard: Guard) -> Guard:
    """Let a context that builds on this one refuse claims which found nothing.

    Those that found something it refuses by reacting to ``task.claimed``.
    """
    _GUARDS.append(guard)
    return guard


async def refuse_in_vain(db: AsyncConnection, claims: Sequence[ClaimTasks]) -> list[Refusal | None]:
    """Why each of these claims, for which there was nothing, had no right to anything; or None."""
    refusals: list[Refusal | None] = [await unknown_filter(db, claim) for claim in claims]
    for guard in _GUARDS if claims else ():
        said = await guard(db, claims)
        refusals = [one or other for one, other in zip(refusals, said, strict=True)]
    return refusals


async def take_first(db: AsyncConnection, claim: ClaimTasks, now: datetime) -> ClaimedTask | None:
    """The next task, already in the hands of who claims it; None where a closer look is needed."""
    taken = await _claims.take_first(db, claim, _in_hand(claim, now), now=now)
    return taken and _fitting([taken])[0]


async def take_ready(
    db: AsyncConnection, filters: ClaimTasks, *, limit: int, besides: Collection[UUID]
) -> list[ClaimedTask]:
    """Lock up to ``limit`` tasks that are ready and pass the filters of a claim, in order.

    ``besides`` are those that this transaction has dealt already: its own locks do not stop it.
    """
    found: list[ClaimedTask | None] = []
    for _ in range(ROUNDS):
        found = await _claims.lock_ready(db, filters, limit=limit, besides=besides)
        if None not in found:
            break
    return [one for one in found if one is not None]


def deal(
    claims: Sequence[ClaimTasks], taken: Iterable[ClaimedTask], now: datetime
) -> list[list[ClaimedTask]]:
    """What each claim gets of what was taken for all: in turn, as many as fit into one reply."""
    left = deque(taken)
    dealt = []
    for claim in claims:
        offered = islice(left, claim.limit)
        fitting = _fitting(
            one.model_copy(update={"task": claimed(one.task, claim, now)}) for one in offered
        )
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
    return task.evolve(now, attempt=task.attempt + 1, **_in_hand(claim, now))


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


def _in_hand(claim: ClaimTasks, now: datetime) -> dict[str, Any]:
    return {
        "status": "in_progress",
        "claimed_by": claim.agent_id,
        "lease_expires_at": now + timedelta(seconds=claim.lease_seconds),
        "lease_seconds": claim.lease_seconds,
    }


def _fitting(found: Iterable[ClaimedTask]) -> list[ClaimedTask]:
    """The first of these that fit into a reply, one at least: none may hold up the queue."""
    fitting: list[ClaimedTask] = []
    left = REPLY_BYTES
    for item in found:
        left -= len(item.task.encoded()) + len(item.model_dump_json(exclude={"task"}).encode())
        if left < 0:
            return fitting or [_without_context(item)]
        fitting.append(item)
    return fitting


def _without_context(item: ClaimedTask) -> ClaimedTask:
    phase = item.phase and item.phase.model_copy(update={"content": None})
    brief = [other.model_copy(update={"summary": None}) for other in item.dependencies]
    return item.model_copy(update={"phase": phase, "dependencies": brief})
