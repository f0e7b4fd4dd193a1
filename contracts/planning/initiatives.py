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
    GetOf,
    GitRef,
    GoneIds,
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
from contracts.planning._initiative_parts import InitiativeContents, InitiativeDeletion

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
    """How many tasks have each status."""

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
    """A phase, and how far along its tasks are."""

    phase: PhaseSummary
    tasks: TaskCounts


class InitiativeOverview(Reply):
    """An initiative at a glance."""

    initiative: Initiative
    phases: list[PhaseProgress]
    """Ordered by position."""
    tasks: TaskCounts
    """All tasks of the initiative, including those outside any phase."""


class InitiativeProjects(Reply):
    """What changed in the projects of an initiative."""

    initiative: Initiative
    added: list[ProjectId]
    removed: list[ProjectId]


class InitiativeCreated(Event, type="initiative.created"):
    """An initiative was created."""

    initiative: Initiative
    project_ids: list[ProjectId]


class InitiativeUpdated(Event, type="initiative.updated"):
    """Fields of an initiative were changed."""

    initiative: Initiative


class InitiativeProjectsChanged(Event, type="initiative.projects_changed"):
    """The projects that an initiative is about were changed."""

    initiative: Initiative
    added: list[ProjectId]
    removed: list[ProjectId]


class InitiativePendingReview(Event, type="initiative.pending_review"):
    """All phases and tasks of an initiative are completed; a person is to review the work."""

    initiative: Initiative
    previous_status: InitiativeStatus


class InitiativeApproved(Event, type="initiative.approved"):
    """The work of an initiative was accepted; whoever holds its repositories is to publish it."""

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
    """An initiative that was over has new work; it is active again."""

    initiative: Initiative
    previous_status: InitiativeStatus


class InitiativeArchived(Event, type="initiative.archived"):
    """An initiative was archived."""

    initiative: Initiative
    previous_status: InitiativeStatus


class InitiativeUnarchived(Event, type="initiative.unarchived"):
    """An archived initiative returned to the status that it had before."""

    initiative: Initiative
    previous_status: InitiativeStatus


class InitiativeDeleted(Event, type="initiative.deleted"):
    """An initiative was deleted, and its phases and tasks with it."""

    initiative: Initiative
    """The initiative as it last was, with its version one higher."""
    deleted: InitiativeContents
    phase_ids: GoneIds = Field(default_factory=list)
    task_ids: GoneIds = Field(default_factory=list)


class CreateInitiative(
    Command[Initiative],
    subject="db.initiatives.create",
    errors=(AlreadyExists, InvalidReference),
    emits=(InitiativeCreated,),
    example={"name": "Faster search", "project_ids": [_EXAMPLE_PROJECT]},
):
    """Create an initiative; it is active at once."""

    id: InitiativeId | None = None
    """A UUID of the caller's own, preferably version 7; generated by the service if absent."""
    name: Title
    branch: GitRef | None = None
    execution_mode: ExecutionMode = "review_per_phase"
    external_ref: ExternalRef | None = None
    project_ids: Ids = Field(default=[])


class GetInitiative(GetOf[Initiative], subject="db.initiatives.get", example={"id": _EXAMPLE_ID}):
    """Get one initiative by its id."""

    id: InitiativeId


class FindInitiative(
    Query[Initiative],
    subject="db.initiatives.find",
    errors=(InitiativeNotFound,),
    example={"external_ref": "roadmap.jsonl"},
):
    """Find one initiative by the plan that it came from, or the oldest with a name; give one."""

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
    """List initiatives, a page at a time; an absent filter excludes nothing."""

    status: InitiativeStatus | None = None
    project_id: ProjectId | None = None
    search: Search | None = None
    """Text in the name."""
    order: InitiativeOrder = "created_at"
    """The column to order by; ``-`` reverses the order. Ties are broken by id."""


class GetInitiativeOverview(
    Query[InitiativeOverview],
    subject="db.initiatives.overview",
    errors=(InitiativeNotFound,),
    expensive=True,
    example={"id": _EXAMPLE_ID},
):
    """Get an initiative with all its phases and its tasks counted by status, at one moment."""

    id: InitiativeId


class UpdateInitiative(
    Command[Initiative],
    subject="db.initiatives.update",
    errors=(InitiativeNotFound, VersionConflict),
    emits=(InitiativeUpdated,),
    example={"id": _EXAMPLE_ID, "execution_mode": "yolo", "branch": None},
):
    """Update an initiative. A field that is left out stays as it is; null clears it.

    An update that changes nothing leaves the version alone and emits no event.
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
    """Set the projects that an initiative is about; projects are added and removed to match."""

    id: InitiativeId
    project_ids: Ids
    """All of them; an empty list removes them all."""


class ApproveInitiative(
    Command[Initiative],
    subject="db.initiatives.approve",
    errors=(InitiativeNotFound, InvalidTransition),
    emits=(InitiativeApproved,),
    example={"id": _EXAMPLE_ID, "strategy": "merge_and_push"},
):
    """Approve the work of an initiative that is pending review: the initiative is completed."""

    id: InitiativeId
    strategy: ApprovalStrategy
    """How the work is to be published; passed on in the event."""


class RequestInitiativeChanges(
    Command[Initiative],
    subject="db.initiatives.request_changes",
    errors=(InitiativeNotFound, InvalidTransition),
    emits=(InitiativeChangesRequested,),
    example={"id": _EXAMPLE_ID, "summary": "The changelog is missing."},
):
    """Request changes to an initiative that is pending review; it is active again.

    In the same transaction the phase "Finalization" is created, or reopened if the initiative
    already has one (``phase.created``, ``phase.changes_requested``), and gets a review task with
    the summary as its description, as with ``db.phases.request_changes``.
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
    """Archive an initiative, whatever its status; the status is remembered."""

    id: InitiativeId


class UnarchiveInitiative(
    Command[Initiative],
    subject="db.initiatives.unarchive",
    errors=(InitiativeNotFound, InvalidTransition),
    emits=(InitiativeUnarchived,),
    example={"id": _EXAMPLE_ID},
):
    """Unarchive an initiative: it returns to the status that it had before."""

    id: InitiativeId


class DeleteInitiative(
    Command[InitiativeDeletion],
    subject="db.initiatives.delete",
    errors=(InitiativeNotFound,),
    emits=(InitiativeDeleted,),
    example={"id": _EXAMPLE_ID},
):
    """Delete an initiative for good, with its phases and their tasks. See also ``archive``."""

    id: InitiativeId
