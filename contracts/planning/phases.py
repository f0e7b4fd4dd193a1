"""Phases: the steps of an initiative, each a set of tasks."""

from typing import Literal

from contracts._declare import Entity
from contracts._errors import NotFound
from contracts._fields import ExternalRef, GitRef, Id, JsonObject, Position, Reason, Title
from contracts.planning.initiatives import InitiativeId

PhaseId = Id
PhaseStatus = Literal[
    "pending", "approved", "in_progress", "pending_review", "completed", "blocked"
]


class PhaseNotFound(NotFound, detail="phase {id} does not exist"):
    """There is no such phase."""

    id: PhaseId


class Phase(Entity, not_found=PhaseNotFound):
    """A step of an initiative; its tasks can be claimed while it is in progress."""

    initiative_id: InitiativeId
    name: Title
    content: JsonObject | None
    """A Tiptap document."""
    status: PhaseStatus
    status_before: PhaseStatus | None
    """The status to return to when it is unblocked."""
    blocked_reason: Reason | None
    merge_base: GitRef | None
    position: Position
    external_ref: ExternalRef | None
    """Its id in the plan that it was imported from; unique within the initiative."""
