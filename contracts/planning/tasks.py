"""Tasks: pieces of work that one agent does in one go, and who has them."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from bus.contract import (
    ABSENT,
    AgentId,
    AlreadyExists,
    Attempt,
    Command,
    ExternalRef,
    GetOf,
    InvalidReference,
    InvalidTransition,
    Json,
    LeaseSeconds,
    ListOf,
    Markdown,
    Name,
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
from contracts.planning._errors import (
    DependencyCycle,
    DependencyNotFound,
    DifferentInitiatives,
    InitiativeClosed,
    Named,
    StaleIncarnation,
    Waiting,
)
from contracts.planning._fields import Incarnation, PhaseId
from contracts.planning._task import (
    Task,
    TaskBlocked,
    TaskClaimed,
    TaskCompleted,
    TaskCreated,
    TaskDeleted,
    TaskDependencyAdded,
    TaskDependencyRemoved,
    TaskLateCompletion,
    TaskLeaseExpired,
    TaskReady,
    TaskReleased,
    TaskRetried,
    TaskUpdated,
)
from contracts.planning._task_claims import ClaimedTask, ClaimedTasks, TaskContext
from contracts.planning._task_parts import (
    InitiativeBrief,
    LateResult,
    LateResultNotFound,
    NewTask,
    NewTaskItem,
    NewTaskRef,
    NewTasks,
    PhaseBrief,
    Shortened,
    StaleAttempt,
    TaskBrief,
    TaskCategory,
    TaskContents,
    TaskDeletion,
    TaskId,
    TaskNotFound,
    TaskOrder,
    TaskPriority,
    TaskQueue,
    TaskStatus,
    distinct_refs,
)
from contracts.planning.initiatives import InitiativeId

EXAMPLE_ID = "0199c0de-0000-7000-8000-000000000001"
EXAMPLE_PHASE = "0199c0de-0000-7000-8000-000000000002"


class CreateTask(
    Command[Task],
    NewTask,
    subject="db.tasks.create",
    errors=(
        InvalidReference,
        DifferentInitiatives,
        DependencyCycle,
        AlreadyExists,
        InitiativeClosed,
    ),
    emits=(TaskCreated,),
    example={"name": "Write the migration", "phase_id": EXAMPLE_PHASE, "priority": "high"},
):
    """Create one task. A task in a phase belongs to the phase's initiative, as does its parent.

    A task that is not completed reopens what was over: its phase is in progress again, its
    initiative active. An archived initiative accepts no new tasks.
    """


class CreateManyTasks(
    Command[NewTasks],
    subject="db.tasks.create_many",
    errors=(
        InvalidReference,
        DifferentInitiatives,
        DependencyCycle,
        AlreadyExists,
        InitiativeClosed,
    ),
    emits=(TaskCreated,),
    example={
        "items": [
            {"ref": "schema", "name": "Write the migration"},
            {"ref": "code", "name": "Use the new column", "depends_on": ["schema"]},
        ]
    },
):
    """Create up to 500 tasks with parents and dependencies among them, all or nothing."""

    items: Annotated[
        list[NewTaskItem], Field(min_length=1, max_length=500), AfterValidator(distinct_refs)
    ]


class GetTask(GetOf[Task], subject="db.tasks.get"):
    """Get one task by its id."""

    id: TaskId


class ListTasks(
    ListOf[Task],
    subject="db.tasks.list",
    example={"phase_id": EXAMPLE_PHASE, "status": "pending", "order": "position"},
):
    """List the tasks that match every filter given."""

    phase_id: PhaseId | None = None
    """Includes tasks without a phase of their own that are below a task of this phase."""
    initiative_id: InitiativeId | None = None
    parent_task_id: TaskId | None = None
    status: TaskStatus | None = None
    category: TaskCategory | None = None
    priority: TaskPriority | None = None
    claimed_by: AgentId | None = None
    ready: bool | None = None
    """True: only tasks that can be claimed. False: all the others."""
    search: Search | None = None
    order: TaskOrder = "created_at"


class ListTaskDependencies(ListOf[Task], subject="db.tasks.dependencies", errors=(TaskNotFound,)):
    """List the tasks that a task depends on."""

    id: TaskId
    order: TaskOrder = "created_at"


class ListTaskDependents(ListOf[Task], subject="db.tasks.dependents", errors=(TaskNotFound,)):
    """List the tasks that depend on a task."""

    id: TaskId
    order: TaskOrder = "created_at"


class GetTaskContext(Query[TaskContext], subject="db.tasks.context", errors=(TaskNotFound,)):
    """Get a task with its phase, initiative, parent, children and summaries of its dependencies."""

    id: TaskId


class GetTaskQueue(
    Query[TaskQueue],
    subject="db.tasks.queue",
    errors=(InvalidReference,),
    expensive=True,
    example={"initiative_id": EXAMPLE_ID},
):
    """Get the number of tasks in each state, of one initiative or of all."""

    initiative_id: InitiativeId | None = None


class UpdateTask(
    Command[Task],
    subject="db.tasks.update",
    errors=(
        TaskNotFound,
        VersionConflict,
        InvalidReference,
        DifferentInitiatives,
        DependencyCycle,
        AlreadyExists,
        InitiativeClosed,
    ),
    emits=(TaskUpdated,),
    example={"id": EXAMPLE_ID, "priority": "high", "expected_version": 3},
):
    """Update a task. Fields that are left out stay; null clears those that may be null.

    Moving a task that is not completed into a phase that is over reopens the phase.
    """

    id: TaskId
    expected_version: Version | None = None
    phase_id: PhaseId | None = None
    """Another phase of the same initiative."""
    name: Title = ABSENT
    description: Markdown | None = None
    type: Name = ABSENT
    category: TaskCategory = ABSENT
    priority: TaskPriority = ABSENT
    position: Position = ABSENT
    external_ref: ExternalRef | None = None


class DeleteTask(
    Command[TaskDeletion],
    subject="db.tasks.delete",
    errors=(TaskNotFound,),
    emits=(TaskDeleted, TaskDependencyRemoved),
    example={"id": EXAMPLE_ID},
):
    """Delete a task with everything below it; tasks that depended on it no longer wait for it."""

    id: TaskId


class AddTaskDependency(
    Command[Task],
    subject="db.tasks.add_dependency",
    errors=(
        TaskNotFound,
        InvalidReference,
        InvalidTransition,
        DifferentInitiatives,
        DependencyCycle,
        AlreadyExists,
    ),
    emits=(TaskDependencyAdded,),
    example={"id": EXAMPLE_ID, "depends_on_task_id": EXAMPLE_PHASE},
):
    """Add a dependency: a task that has not begun waits for another one of its initiative."""

    id: TaskId
    depends_on_task_id: TaskId


class RemoveTaskDependency(
    Command[Task],
    subject="db.tasks.remove_dependency",
    errors=(TaskNotFound, DependencyNotFound),
    emits=(TaskDependencyRemoved,),
    example={"id": EXAMPLE_ID, "depends_on_task_id": EXAMPLE_PHASE},
):
    """Remove a dependency: a task no longer waits for another one."""

    id: TaskId
    depends_on_task_id: TaskId


class ClaimTasks(
    Command[ClaimedTasks],
    subject="db.tasks.claim",
    errors=(InvalidReference, InvalidTransition, StaleIncarnation),
    emits=(TaskClaimed,),
    example={"agent_id": "agent-7", "limit": 3, "lease_seconds": 600},
):
    """Claim the next ready tasks, each for one caller only; the list is empty if none is ready.

    A task is ready when it is pending and nothing holds it back: everything that it or a task above
    it depends on is completed, no task above it is blocked, its phase, if it is in one, is in
    progress, and its initiative, if it has one, is active.

    The order is priority, then position, then age. Fewer tasks than asked for may come back if the
    reply would become too large for one message; the others stay ready. A single task that does
    not fit is cut, and the reply says so. An agent that has ended can claim nothing.
    """

    agent_id: AgentId
    incarnation: Incarnation | None = None
    """Which process of a registered agent claims; one that has been replaced is refused."""
    initiative_id: InitiativeId | None = None
    phase_id: PhaseId | None = None
    """Includes tasks without a phase of their own that are below a task of this phase."""
    categories: list[TaskCategory] = Field(
        default=["execute", "verify", "merge", "review"], min_length=1, max_length=9
    )
    """The planning categories are claimed only when they are named."""
    limit: Annotated[int, Field(ge=1, le=50)] = 1
    lease_seconds: LeaseSeconds = 300


class RenewTask(
    Command[Task],
    subject="db.tasks.renew",
    errors=(TaskNotFound, InvalidTransition, StaleAttempt),
    vital=True,
    example={"id": EXAMPLE_ID, "attempt": 1},
):
    """Renew a claim. A sign of life is not a change: it emits no event and the version stays."""

    id: TaskId
    attempt: Attempt
    lease_seconds: LeaseSeconds = 300
    """Counted from now."""


class ReleaseTask(
    Command[Task],
    subject="db.tasks.release",
    errors=(TaskNotFound, InvalidTransition, StaleAttempt),
    emits=(TaskReleased,),
    example={"id": EXAMPLE_ID, "attempt": 1, "reason": "out of context"},
):
    """Release a claimed task, unfinished; it is pending again."""

    id: TaskId
    attempt: Attempt
    reason: Reason


class CompleteTask(
    Command[Task],
    subject="db.tasks.complete",
    errors=(TaskNotFound, InvalidTransition, StaleAttempt),
    emits=(TaskCompleted, TaskLateCompletion),
    example={"id": EXAMPLE_ID, "attempt": 1, "summary": "Added the column, backfilled it."},
):
    """Complete a task in progress; its summary becomes context for the tasks that depend on it."""

    id: TaskId
    attempt: Attempt | None = None
    """The attempt of the claim. A result of an attempt that is over is kept as a late result while
    there is room for it: up to a hundred of them with 256 KiB of JSON in total, or a single larger
    one. The refusal says whether it is ``kept``; ``db.tasks.accept_late`` makes it the result of
    the task. Without an attempt, only the task's current state decides."""
    summary: Summary | None = None
    result: Json | None = None


class BlockTask(
    Command[Task],
    subject="db.tasks.block",
    errors=(TaskNotFound, InvalidTransition, StaleAttempt),
    emits=(TaskBlocked,),
    example={"id": EXAMPLE_ID, "attempt": 1, "reason": "The API key is missing."},
):
    """Block a task that cannot go on, and say why, until a person has looked at it."""

    id: TaskId
    attempt: Attempt | None = None
    """The attempt of the claim. Without it, only the task's current state decides."""
    reason: Reason


class RetryTask(
    Command[Task],
    subject="db.tasks.retry",
    errors=(TaskNotFound, InvalidTransition, InitiativeClosed),
    emits=(TaskRetried,),
    example={"id": EXAMPLE_ID},
):
    """Retry a blocked task, with all its retries restored; a phase that was over is reopened."""

    id: TaskId


class AcceptLateResult(
    Command[Task],
    subject="db.tasks.accept_late",
    errors=(TaskNotFound, LateResultNotFound),
    emits=(TaskCompleted, TaskUpdated),
    example={"id": EXAMPLE_ID, "attempt": 1},
):
    """Accept the last late result of an attempt as the result of its task.

    This completes the task, whatever state it is in; if it is completed already, its result is
    replaced. If the late result is ``shortened``, the task gets what is left of it.
    """

    id: TaskId
    attempt: Attempt
