"""Phases: the steps of an initiative, each a set of tasks."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from bus.contract import (
    ABSENT,
    AlreadyExists,
    Command,
    Entity,
    Event,
    ExternalRef,
    GitRef,
    Id,
    InvalidReference,
    InvalidTransition,
    JsonObject,
    ListOf,
    Position,
    Query,
    Reason,
    Summary,
    Title,
    Version,
    VersionConflict,
)
from contracts.planning._errors import (
    DependencyCycle,
    DependencyNotFound,
    DifferentInitiatives,
    InitiativeClosed,
)
from contracts.planning._fields import Ids, PhaseId, PhaseStatus
from contracts.planning._phase_parts import (
    DependenciesOpen,
    PhaseContents,
    PhaseDeletion,
    PhaseNotFound,
    PhaseSequence,
)
from contracts.planning._task import TaskReady

PhaseOrder = Literal["position", "-position", "created_at", "-created_at", "name", "-name"]

_EXAMPLE_ID = "0199c0de-0000-7000-8000-000000000002"
_EXAMPLE_OTHER = "0199c0de-0000-7000-8000-000000000003"
_EXAMPLE_INITIATIVE = "0199c0de-0000-7000-8000-000000000001"


class Phase(Entity, not_found=PhaseNotFound):
    """A step of an initiative; its tasks can be claimed while it is in progress."""

    initiative_id: Id
    name: Title
    content: JsonObject | None
    """A Tiptap document."""
    status: PhaseStatus
    status_before: PhaseStatus | None
    """The status to return to when it is unblocked."""
    blocked_reason: Reason | None
    merge_base: GitRef | None
    """The commit that its work was merged onto."""
    position: Position
    external_ref: ExternalRef | None
    """Its id in the plan that it was imported from; unique within the initiative."""


class PhaseCreated(Event, type="phase.created"):
    """A phase was added to an initiative."""

    phase: Phase


class PhaseUpdated(Event, type="phase.updated"):
    """What a phase says, its place or what it depends on was changed."""

    phase: Phase


class PhaseApproved(Event, type="phase.approved"):
    """A phase may be started once the phases that it depends on are completed."""

    phase: Phase
    previous_status: PhaseStatus


class PhaseStarted(Event, type="phase.started"):
    """A phase is in progress: its tasks can be claimed. One that was over has got one to do."""

    phase: Phase
    previous_status: PhaseStatus


class PhaseDispatchable(Event, type="phase.dispatchable"):
    """An approved phase waits for no other, or no longer: it can be started."""

    phase: Phase


class PhasePendingReview(Event, type="phase.pending_review"):
    """All tasks of a phase are completed; a person looks at the work."""

    phase: Phase
    previous_status: PhaseStatus


class PhaseChangesRequested(Event, type="phase.changes_requested"):
    """A review asked for changes; the phase is in progress again, with a review task."""

    phase: Phase
    previous_status: PhaseStatus
    summary: Summary
    """What is to be changed: the description of the review task."""


class PhaseCompleted(Event, type="phase.completed"):
    """A phase is done; what depends on it may become dispatchable."""

    phase: Phase
    previous_status: PhaseStatus


class PhaseBlocked(Event, type="phase.blocked"):
    """A phase cannot go on for the time being."""

    phase: Phase
    previous_status: PhaseStatus


class PhaseUnblocked(Event, type="phase.unblocked"):
    """A blocked phase is where it was before."""

    phase: Phase
    previous_status: PhaseStatus


class PhaseDeleted(Event, type="phase.deleted"):
    """A phase is gone, and its tasks with it."""

    phase: Phase
    """As it was last, its version one higher."""
    deleted: PhaseContents


class CreatePhase(
    Command[Phase],
    subject="db.phases.create",
    errors=(AlreadyExists, InvalidReference, InitiativeClosed),
    emits=(PhaseCreated,),
    example={"initiative_id": _EXAMPLE_INITIATIVE, "name": "Design"},
):
    """Add a phase to an initiative, after its last one unless a position is given.

    ``status`` brings in a phase of a plan that is under way elsewhere; nothing is told besides. An
    initiative that is over is taken up again by a phase that is not completed.
    """

    id: PhaseId | None = None
    """A UUIDv7 of the caller's own; made by the service when absent."""
    initiative_id: Id
    name: Title
    content: JsonObject | None = None
    """A Tiptap document."""
    status: Literal["pending", "approved", "in_progress", "completed", "blocked"] = "pending"
    blocked_reason: Reason | None = None
    """Given with the status ``blocked``, and only then."""
    merge_base: GitRef | None = None
    position: Position | None = None
    external_ref: ExternalRef | None = None

    @model_validator(mode="after")
    def _reason_if_blocked(self) -> Self:
        if (self.status == "blocked") != (self.blocked_reason is not None):
            raise ValueError("blocked_reason goes with the status blocked, and only with it")
        return self


class GetPhase(Query[Phase], subject="db.phases.get", errors=(PhaseNotFound,)):
    """One phase by its id."""

    id: PhaseId


class ListPhases(
    ListOf[Phase],
    subject="db.phases.list",
    example={"initiative_id": _EXAMPLE_INITIATIVE, "status": "in_progress"},
):
    """Phases, a page at a time; an absent filter leaves nothing out."""

    initiative_id: Id | None = None
    status: PhaseStatus | None = None
    external_ref: ExternalRef | None = None
    order: PhaseOrder = "position"
    """The column to order by; ``-`` turns it round. Ties are broken by id."""


class UpdatePhase(
    Command[Phase],
    subject="db.phases.update",
    errors=(PhaseNotFound, VersionConflict),
    emits=(PhaseUpdated,),
    example={"id": _EXAMPLE_ID, "name": "Design, second round", "expected_version": 3},
):
    """Change what a phase says. A field left out stays as it is, null clears it.

    An update that changes nothing leaves the version alone and tells nothing.
    """

    id: PhaseId
    expected_version: Version | None = None
    """Refuse unless the phase is at this version."""
    name: Title = ABSENT
    content: JsonObject | None = None
    merge_base: GitRef | None = None
    position: Position = ABSENT


class DeletePhase(
    Command[PhaseDeletion],
    subject="db.phases.delete",
    errors=(PhaseNotFound,),
    emits=(PhaseDeleted, PhaseUpdated, PhaseDispatchable, TaskReady),
    example={"id": _EXAMPLE_ID},
):
    """Delete a phase for good, with its tasks; what depended on it waits for it no longer."""

    id: PhaseId


class ReorderPhases(
    Command[PhaseSequence],
    subject="db.phases.reorder",
    errors=(PhaseNotFound, DifferentInitiatives),
    emits=(PhaseUpdated,),
    example={"ids": [_EXAMPLE_OTHER, _EXAMPLE_ID]},
):
    """Put the named phases of one initiative first, in this order; the others stay behind them."""

    ids: Annotated[Ids, Field(min_length=1)]


class ApprovePhase(
    Command[Phase],
    subject="db.phases.approve",
    errors=(PhaseNotFound, InvalidTransition),
    emits=(PhaseApproved,),
    example={"id": _EXAMPLE_ID},
):
    """Approve a pending phase. It can be started at once if it waits for no other."""

    id: PhaseId


class StartPhase(
    Command[Phase],
    subject="db.phases.start",
    errors=(PhaseNotFound, InvalidTransition, DependenciesOpen),
    emits=(PhaseStarted,),
    example={"id": _EXAMPLE_ID},
):
    """Start an approved phase; every phase that it depends on must be completed."""

    id: PhaseId


class BlockPhase(
    Command[Phase],
    subject="db.phases.block",
    errors=(PhaseNotFound, InvalidTransition),
    emits=(PhaseBlocked,),
    example={"id": _EXAMPLE_ID, "reason": "The schema is not decided yet."},
):
    """Block a phase that is not completed; its status is remembered."""

    id: PhaseId
    reason: Reason


class UnblockPhase(
    Command[Phase],
    subject="db.phases.unblock",
    errors=(PhaseNotFound, InvalidTransition),
    emits=(PhaseUnblocked,),
    example={"id": _EXAMPLE_ID},
):
    """Return a blocked phase to the status that it had before, and go on from there."""

    id: PhaseId


class CompletePhase(
    Command[Phase],
    subject="db.phases.complete",
    errors=(PhaseNotFound, InvalidTransition),
    emits=(PhaseCompleted,),
    example={"id": _EXAMPLE_ID},
):
    """Complete a phase in progress, whatever became of its tasks.

    Tasks that are left keep its initiative from being done, until they are moved or deleted.
    """

    id: PhaseId


class ApprovePhaseReview(
    Command[Phase],
    subject="db.phases.approve_review",
    errors=(PhaseNotFound, InvalidTransition),
    emits=(PhaseCompleted,),
    example={"id": _EXAMPLE_ID, "merge_base": "5f2c1e9"},
):
    """Accept the work of a phase that is pending review: the phase is completed."""

    id: PhaseId
    merge_base: GitRef | None = None
    """The commit that the work was merged onto; the one that is known stays when absent."""


class RequestPhaseChanges(
    Command[Phase],
    subject="db.phases.request_changes",
    errors=(PhaseNotFound, InvalidTransition, InitiativeClosed),
    emits=(PhaseChangesRequested,),
    example={"id": _EXAMPLE_ID, "summary": "The second endpoint lacks a test."},
):
    """Ask for changes to a phase that is pending review; it is in progress again.

    What follows in the same transaction: a task of the category ``review`` with the summary as its
    description is added to the phase, or takes the summary over if one is still open
    (``task.created`` or ``task.updated``).
    """

    id: PhaseId
    summary: Summary


class AddPhaseDependency(
    Command[Phase],
    subject="db.phases.add_dependency",
    errors=(
        PhaseNotFound,
        InvalidReference,
        DifferentInitiatives,
        DependencyCycle,
        AlreadyExists,
    ),
    emits=(PhaseUpdated,),
    example={"id": _EXAMPLE_ID, "depends_on_phase_id": _EXAMPLE_OTHER},
):
    """Let a phase wait for another phase of its initiative, in which nothing waits for it."""

    id: PhaseId
    depends_on_phase_id: PhaseId


class RemovePhaseDependency(
    Command[Phase],
    subject="db.phases.remove_dependency",
    errors=(PhaseNotFound, DependencyNotFound),
    emits=(PhaseUpdated, PhaseDispatchable),
    example={"id": _EXAMPLE_ID, "depends_on_phase_id": _EXAMPLE_OTHER},
):
    """Let a phase no longer wait for another one."""

    id: PhaseId
    depends_on_phase_id: PhaseId


class ListPhaseDependencies(
    ListOf[Phase], subject="db.phases.dependencies", errors=(PhaseNotFound,)
):
    """The phases that a phase waits for, a page at a time."""

    id: PhaseId
    order: PhaseOrder = "position"


class ListPhaseDependents(ListOf[Phase], subject="db.phases.dependents", errors=(PhaseNotFound,)):
    """The phases that wait for a phase, a page at a time."""

    id: PhaseId
    order: PhaseOrder = "position"


class ListDispatchablePhases(
    ListOf[Phase],
    subject="db.phases.dispatchable",
    example={"initiative_id": _EXAMPLE_INITIATIVE},
):
    """The phases of an initiative that can be started: approved, all dependencies completed."""

    initiative_id: Id
    order: PhaseOrder = "position"
