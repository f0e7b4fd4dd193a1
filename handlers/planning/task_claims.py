"""Who gets which task, and what an agent is given to begin."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import InvalidReference, Refusal
from bus.storage import exists
from contracts.planning.initiatives import Initiative
from contracts.planning.phases import Phase
from contracts.planning.tasks import ClaimedTask, ClaimTasks, Task
from handlers.planning._task_late_results import evolve
from handlers.planning._task_shortening import FRAME, shorten, size
from handlers.planning.states import TASK
from persistence.planning import task_claims as _task_claims

ROUNDS = 8
"""How often a claim looks where tasks change, or others take them, under its eyes."""

FURTHER = 64
"""How many times more a claim considers where others have what it considered first."""


class Assignment(NamedTuple):
    """A task in the hands of who claimed it, and what is told of it."""

    task: Task
    reply: ClaimedTask


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
    return await _task_claims.take_first(db, claim, _in_hand(claim, now), now=now)


async def take_ready(
    db: AsyncConnection, filters: ClaimTasks, *, limit: int, besides: Collection[UUID]
) -> list[ClaimedTask]:
    """Lock up to ``limit`` tasks that are ready and pass the filters of a claim, in order.

    ``besides`` are those that this transaction has dealt already: its own locks do not stop it.
    """
    window = _task_claims.window(limit + len(besides))
    found: list[ClaimedTask | None] = []
    for _ in range(ROUNDS):
        found, further = await _task_claims.lock_ready(
            db, filters, limit=limit, besides=besides, window=window
        )
        if None in found:
            continue
        if len(found) == limit or not further:
            break
        window *= FURTHER
    return [one for one in found if one is not None]


def assign(
    claims: Sequence[ClaimTasks], taken: Iterable[ClaimedTask], now: datetime, room: int
) -> list[list[Assignment]]:
    """What each claim gets of what was taken for all: in turn, as many as fit into one reply.

    One at least: of a task that does not fit alone something is cut.
    """
    left = deque(taken)
    return [_hand_out(left, claim, now, room - FRAME) for claim in claims]


def alike(claims: Sequence[ClaimTasks]) -> list[list[int]]:
    """The places of the claims that have the same filters, together."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for place, claim in enumerate(claims):
        filters = (claim.initiative_id, claim.phase_id, *sorted(claim.categories))
        groups.setdefault(filters, []).append(place)
    return list(groups.values())


def claim_task(task: Task, claim: ClaimTasks, now: datetime) -> Task:
    """The task as it is in the hands of who claims it."""
    TASK.require(task, "claim")
    return evolve(task, now, attempt=task.attempt + 1, **_in_hand(claim, now))


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
    if initiative_id is not None and not await exists(db, Initiative, initiative_id):
        raise InvalidReference(field="initiative_id", entity="initiative")
    if phase_id is not None and not await exists(db, Phase, phase_id):
        raise InvalidReference(field="phase_id", entity="phase")


def _in_hand(claim: ClaimTasks, now: datetime) -> dict[str, Any]:
    return {
        "status": "in_progress",
        "claimed_by": claim.agent_id,
        "lease_expires_at": now + timedelta(seconds=claim.lease_seconds),
        "lease_seconds": claim.lease_seconds,
    }


def _hand_out(
    left: deque[ClaimedTask], claim: ClaimTasks, now: datetime, room: int
) -> list[Assignment]:
    """What one claim gets of what is left, whose task is changed."""
    assigned: list[Assignment] = []
    while left and len(assigned) < claim.limit:
        task = claim_task(left[0].task, claim, now)
        reply = left[0].model_copy(update={"task": task})
        bytes_ = size(reply) + 1
        if bytes_ > room and assigned:
            break
        left.popleft()
        assigned.append(Assignment(task, reply if bytes_ <= room else shorten(reply, room)))
        room -= bytes_
    return assigned
