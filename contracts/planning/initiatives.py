"""Initiatives: what a fleet sets out to do, in phases, over one or more projects."""

from typing import Literal

from contracts._declare import Entity
from contracts._errors import NotFound
from contracts._fields import ExternalRef, GitRef, Id, Title

InitiativeId = Id
InitiativeStatus = Literal["active", "pending_review", "completed", "archived"]
ExecutionMode = Literal["yolo", "review_per_phase"]


class InitiativeNotFound(NotFound, detail="initiative {id} does not exist"):
    """There is no such initiative."""

    id: InitiativeId


class Initiative(Entity, not_found=InitiativeNotFound):
    """Something to be achieved, divided into phases."""

    name: Title
    status: InitiativeStatus
    branch: GitRef | None
    execution_mode: ExecutionMode
    """``yolo`` completes a phase with its last task; ``review_per_phase`` asks a person first."""
    status_before: InitiativeStatus | None
    """The status to return to when it is unarchived."""
    external_ref: ExternalRef | None
    """The plan that it was imported from; unique."""
