"""Initiatives: what a fleet sets out to do, in phases, over one or more projects."""

from typing import Literal, Self

from pydantic import Field, model_validator

from bus.contract import (
    ABSENT,
    AlreadyExists,
    Command,
    Count,
    Entity,
    Event,
    ExternalRef,
    GitRef,
    Id,
    InvalidReference,
    InvalidTransition,
    ListOf,
    NotFound,
    Position,
    Query,
    Reason,
    Reply,
    Search,
    Summary,
    Title,
    Version,
    VersionConflict,
)
from contracts.planning._fields import Ids, PhaseId, PhaseStatus, ProjectId

InitiativeId = Id
InitiativeStatus = Literal["active", "pending_review", "completed", "archived"]
ExecutionMode = Literal["yolo", "review_per_phase"]
ApprovalStrategy = Literal["push_branch", "merge_and_push"]
InitiativeOrder = Literal["created_at", "-created_at", "name", "-name"]

_EXAMPLE_ID = "0199c0de-0000-7000-8000-000000000001"
_EXAMPLE_PROJECT = "0199c0de-0000-7000-8000-000000000002"


class InitiativeNotFound(NotFound):
    """There is no such initiative."""

    id: InitiativeId | None = None
    external_ref: ExternalRef | None = None
    name: Title | None = None

    @property
    def detail(self) -> str:
        """Which initiative was asked for."""
        return f"initiative {self.id or self.external_ref or self.name} does not exist"


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


class TaskCounts(Reply):
    """How many tasks have which status."""

    pending: Count = 0
    in_progress: Count = 0
    completed: Count = 0
    blocked: Count = 0


class PhaseSummary(Reply):
    """A phase without its content."""

    id: PhaseId
    version: Version
    name: Title
    status: PhaseStatus
    blocked_reason: Reason | None
    position: Position


class PhaseProgress(Reply):
    """A phase and how far its tasks are."""

    phase: PhaseSummary
    tasks: TaskCounts


class InitiativeOverview(Reply):
    """An initiative at a glance."""

    initiative: Initiative
    phases: list[PhaseProgress]
    """Ordered by position."""
    tasks: TaskCounts
    """All tasks of the initiative, those outside of any phase included."""


class InitiativeProjects(Reply):
    """What was changed about the projects of an initiative."""

    initiative: Initiative
    added: list[ProjectId]
    removed: list[ProjectId]


class InitiativeContents(Reply):
    """What belonged to an initiative and went along when it was deleted."""

    phases: Count
    tasks: Count


class InitiativeDeletion(Reply):
    """What was deleted."""

    id: InitiativeId
    deleted: InitiativeContents


class InitiativeCreated(Event, type="initiative.created"):
    """An initiative was begun."""

    initiative: Initiative
    project_ids: list[ProjectId]


class InitiativeUpdated(Event, type="initiative.updated"):
    """What an initiative says was changed."""

    initiative: Initiative


class InitiativeProjectsChanged(Event, type="initiative.projects_changed"):
    """An initiative is about other projects than before."""

    initiative: Initiative
    added: list[ProjectId]
    removed: list[ProjectId]


class InitiativePendingReview(Event, type="initiative.pending_review"):
    """All phases and tasks of an initiative are completed; a person looks at the work."""

    initiative: Initiative
    previous_status: InitiativeStatus


class InitiativeApproved(Event, type="initiative.approved"):
    """The work of an initiative was accepted; whoever holds the repositories publishes it."""

    initiative: Initiative
    previous_status: InitiativeStatus
    strategy: ApprovalStrategy


class InitiativeChangesRequested(Event, type="initiative.changes_requested"):
    """A review asked for changes; the initiative is active again."""

    initiative: Initiative
    previous_status: InitiativeStatus
    summary: Summary
    """What is to be changed."""


class InitiativeReopened(Event, type="initiative.reopened"):
    """An initiative that was over got something to do; it is active again."""

    initiative: Initiative
    previous_status: InitiativeStatus


class InitiativeArchived(Event, type="initiative.archived"):
    """An initiative was put away."""

    initiative: Initiative
    previous_status: InitiativeStatus


class InitiativeUnarchived(Event, type="initiative.unarchived"):
    """An archived initiative is where it was before."""

    initiative: Initiative
    previous_status: InitiativeStatus


class InitiativeDeleted(Event, type="initiative.deleted"):
    """An initiative is gone, and its phases and tasks with it."""

    initiative: Initiative
    """As it was last, its version one higher."""
    deleted: InitiativeContents


class CreateInitiative(
    Command[Initiative],
    subject="db.initiatives.create",
    errors=(AlreadyExists, InvalidReference),
    emits=(InitiativeCreated,),
    example={"name": "Faster search", "project_ids": [_EXAMPLE_PROJECT]},
):
    """Begin an initiative; it is active at once."""

    id: InitiativeId | None = None
    """A UUIDv7 of the caller's own; made by the service when absent."""
    name: Title
    branch: GitRef | None = None
    execution_mode: ExecutionMode = "review_per_phase"
    external_ref: ExternalRef | None = None
    project_ids: Ids = Field(default=[])


class GetInitiative(
    Query[Initiative],
    subject="db.initiatives.get",
    errors=(InitiativeNotFound,),
    example={"id": _EXAMPLE_ID},
):
    """One initiative by its id."""

    id: InitiativeId


class FindInitiative(
    Query[Initiative],
    subject="db.initiatives.find",
    errors=(InitiativeNotFound,),
    example={"external_ref": "roadmap.jsonl"},
):
    """One initiative by the plan that it came from, or the oldest of a name; one is given."""

    external_ref: ExternalRef | None = None
    name: Title | None = None

    @model_validator(mode="after")
    def _by_one_of_them(self) -> Self:
        if (self.external_ref is None) == (self.name is None):
            raise ValueError("give either external_ref or name")
        return self


class ListInitiatives(
    ListOf[Initiative],
    subject="db.initiatives.list",
    example={"status": "active", "order": "-created_at"},
):
    """Initiatives, a page at a time; an absent filter leaves nothing out."""

    status: InitiativeStatus | None = None
    project_id: ProjectId | None = None
    search: Search | None = None
    """Text in the name."""
    order: InitiativeOrder = "created_at"
    """The column to order by; ``-`` turns it round. Ties are broken by id."""


class GetInitiativeOverview(
    Query[InitiativeOverview],
    subject="db.initiatives.overview",
    errors=(InitiativeNotFound,),
    expensive=True,
    example={"id": _EXAMPLE_ID},
):
    """An initiative with all its phases and the number of tasks in each status, at one moment."""

    id: InitiativeId


class UpdateInitiative(
    Command[Initiative],
    subject="db.initiatives.update",
    errors=(InitiativeNotFound, VersionConflict),
    emits=(InitiativeUpdated,),
    example={"id": _EXAMPLE_ID, "execution_mode": "yolo", "branch": None},
):
    """Change what an initiative says. A field left out stays as it is, null clears it.

    An update that changes nothing leaves the version alone and tells nothing.
    """

    id: InitiativeId
    expected_version: Version | None = None
    """Refuse unless the initiative is at this version."""
    name: Title = ABSENT
    branch: GitRef | None = None
    execution_mode: ExecutionMode = ABSENT


class SetInitiativeProjects(
    Command[InitiativeProjects],
    subject="db.initiatives.set_projects",
    errors=(InitiativeNotFound, InvalidReference),
    emits=(InitiativeProjectsChanged,),
    example={"id": _EXAMPLE_ID, "project_ids": [_EXAMPLE_PROJECT]},
):
    """Say which projects an initiative is about; what differs is added and removed at once."""

    id: InitiativeId
    project_ids: Ids
    """All of them; an empty list removes every one."""


class ApproveInitiative(
    Command[Initiative],
    subject="db.initiatives.approve",
    errors=(InitiativeNotFound, InvalidTransition),
    emits=(InitiativeApproved,),
    example={"id": _EXAMPLE_ID, "strategy": "merge_and_push"},
):
    """Accept the work of an initiative that is pending review: it is completed."""

    id: InitiativeId
    strategy: ApprovalStrategy
    """How the work is to be published; told with the event."""


class RequestInitiativeChanges(
    Command[Initiative],
    subject="db.initiatives.request_changes",
    errors=(InitiativeNotFound, InvalidTransition),
    emits=(InitiativeChangesRequested,),
    example={"id": _EXAMPLE_ID, "summary": "The changelog is missing."},
):
    """Ask for changes to an initiative that is pending review; it is active again.

    What follows in the same transaction: the phase "Finalization" is created, or taken up again if
    the initiative has one (``phase.created``, ``phase.changes_requested``), and gets a review task
    with the summary as its description, as in ``db.phases.request_changes``.
    """

    id: InitiativeId
    summary: Summary


class ArchiveInitiative(
    Command[Initiative],
    subject="db.initiatives.archive",
    errors=(InitiativeNotFound, InvalidTransition),
    emits=(InitiativeArchived,),
    example={"id": _EXAMPLE_ID},
):
    """Put an initiative away, whatever its status, which is remembered."""

    id: InitiativeId


class UnarchiveInitiative(
    Command[Initiative],
    subject="db.initiatives.unarchive",
    errors=(InitiativeNotFound, InvalidTransition),
    emits=(InitiativeUnarchived,),
    example={"id": _EXAMPLE_ID},
):
    """Return an archived initiative to the status that it had before."""

    id: InitiativeId


class DeleteInitiative(
    Command[InitiativeDeletion],
    subject="db.initiatives.delete",
    errors=(InitiativeNotFound,),
    emits=(InitiativeDeleted,),
    example={"id": _EXAMPLE_ID},
):
    """Delete an initiative for good, with its phases and their tasks. See ``archive``."""

    id: InitiativeId
