"""Rules about phases that more than one of their handlers needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from bus.contract import MAX_INT4
from contracts.planning.phases import CreatePhase, Phase, PhaseNotFound
from contracts.planning.tasks import DifferentInitiatives, Task

FINALIZATION = "Finalization"
"""The phase that takes up what a review of the whole initiative asks for."""


def new_phase(command: CreatePhase, *, id_: UUID, position: int, now: datetime) -> Phase:
    """The phase that a request describes."""
    return Phase.first(
        id=id_,
        now=now,
        initiative_id=command.initiative_id,
        name=command.name,
        content=command.content,
        status=command.status,
        status_before=None,
        blocked_reason=command.blocked_reason,
        merge_base=command.merge_base,
        position=position,
        external_ref=command.external_ref,
    )


def place_after(last: int | None) -> int:
    """The position behind the last phase; the first one has position 1."""
    return 1 if last is None else min(last + 1, MAX_INT4)


def initiative_of(ids: Sequence[UUID], found: Mapping[UUID, Phase]) -> UUID:
    """The initiative that all of these phases belong to."""
    for id_ in ids:
        if id_ not in found:
            raise PhaseNotFound(id=id_)
    first = found[ids[0]]
    for phase in found.values():
        if phase.initiative_id != first.initiative_id:
            raise DifferentInitiatives(entity="phase", id=first.id, other_id=phase.id)
    return first.initiative_id


def review_task(id_: UUID, phase: Phase, summary: str, now: datetime) -> Task:
    """The task that a request for changes becomes."""
    return Task.first(
        id=id_,
        now=now,
        initiative_id=phase.initiative_id,
        phase_id=phase.id,
        parent_task_id=None,
        name=f"Address review: {phase.name}"[:500],
        description=summary,
        type="auto",
        category="review",
        priority="medium",
        status="pending",
        position=0,
        summary=None,
        result=None,
        retry_count=0,
        blocked_reason=None,
        external_ref=None,
        claimed_by=None,
        attempt=0,
        lease_expires_at=None,
        lease_seconds=None,
        late_results=[],
    )
