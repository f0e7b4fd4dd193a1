"""Tasks: what one agent does in one go, and who has it."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from bus.contract import (
    ABSENT,
    AgentId,
    AlreadyExists,
    Attempt,
    Command,
    ExternalRef,
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
    """Add one task. A task in a phase belongs to the phase's initiative, and so does its parent.

    What is over and gets a task that is not completed is taken up again: its phase is in progress,
    its initiative active. An archived initiative takes none.
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
    """Add up to 500 tasks with parents and dependencies among them, all or nothing."""

    items: Annotated[
        list[NewTaskItem], Field(min_length=1, max_length=500), AfterValidator(distinct_refs)
    ]


class GetTask(Query[Task], subject="db.tasks.get", errors=(TaskNotFound,)):
    """One task by its id."""

    id: TaskId


TaskOrder = Literal["created_at", "-created_at", "position", "-position"]


class ListTasks(
    ListOf[Task],
    subject="db.tasks.list",
    example={"phase_id": EXAMPLE_PHASE, "status": "pending", "order": "position"},
):
    """Tasks that fulfil every filter given."""

    phase_id: PhaseId | None = None
    """What is below a task of this phase and has no phase of its own is in it too."""
    initiative_id: InitiativeId | None = None
    parent_task_id: TaskId | None = None
    status: TaskStatus | None = None
    category: TaskCategory | None = None
    priority: TaskPriority | None = None
    claimed_by: AgentId | None = None
    ready: bool | None = None
    """True: only what can be claimed. False: everything else."""
    search: Search | None = None
    order: TaskOrder = "created_at"


class ListTaskDependencies(ListOf[Task], subject="db.tasks.dependencies", errors=(TaskNotFound,)):
    """The tasks that a task depends on."""

    id: TaskId
    order: TaskOrder = "created_at"


class ListTaskDependents(ListOf[Task], subject="db.tasks.dependents", errors=(TaskNotFound,)):
    """The tasks that depend on a task."""

    id: TaskId
    order: TaskOrder = "created_at"


class GetTaskContext(Query[TaskContext], subject="db.tasks.context", errors=(TaskNotFound,)):
    """A task with its phase, initiative, parent and children, and what came of its dependencies."""

    id: TaskId


class GetTaskQueue(
    Query[TaskQueue],
    subject="db.tasks.queue",
    errors=(InvalidReference,),
    expensive=True,
    example={"initiative_id": EXAMPLE_ID},
):
    """How many tasks are in which state, of one initiative or of all."""

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
    emits=(TaskUpdated, TaskReady),
    example={"id": EXAMPLE_ID, "priority": "high", "expected_version": 3},
):
    """Change what a task says. What is left out stays; null clears what may be null.

    A phase that is over is taken up again by a task that is moved into it and not completed.
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
    emits=(TaskDeleted, TaskDependencyRemoved, TaskReady),
    example={"id": EXAMPLE_ID},
):
    """Delete a task with everything below it; what depended on it waits for it no longer."""

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
    """Let a task that has not begun wait for another one of the same initiative."""

    id: TaskId
    depends_on_task_id: TaskId


class RemoveTaskDependency(
    Command[Task],
    subject="db.tasks.remove_dependency",
    errors=(TaskNotFound, DependencyNotFound),
    emits=(TaskDependencyRemoved, TaskReady),
    example={"id": EXAMPLE_ID, "depends_on_task_id": EXAMPLE_PHASE},
):
    """Let a task wait for another one no longer."""

    id: TaskId
    depends_on_task_id: TaskId


class ClaimTasks(
    Command[ClaimedTasks],
    subject="db.tasks.claim",
    errors=(InvalidReference, InvalidTransition, StaleIncarnation),
    emits=(TaskClaimed,),
    example={"agent_id": "agent-7", "limit": 3, "lease_seconds": 600},
):
    """Take the next ready tasks, each for one caller only; nothing ready is an empty list.

    A task is ready when it is pending and nothing above it says otherwise: what it or a task above
    it depends on is completed, no task above it is blocked, its phase, if it is in one, is in
    progress, and its initiative, if it has one, is active.

    The order is priority, then position, then age. Fewer than asked for may come back where the
    reply would become too large for one message; the others stay ready. What does not fit of a
    single task is cut, and the reply says so. In the name of an agent that has ended nothing is
    claimed.
    """

    agent_id: AgentId
    incarnation: Incarnation | None = None
    """Which process of a registered agent claims; one that is the agent no more is refused."""
    initiative_id: InitiativeId | None = None
    phase_id: PhaseId | None = None
    """What is below a task of this phase and has no phase of its own is in it too."""
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
    """Prolong a claim. A sign of life is no change: no event tells it and the version stays."""

    id: TaskId
    attempt: Attempt
    lease_seconds: LeaseSeconds = 300
    """From now on."""


class ReleaseTask(
    Command[Task],
    subject="db.tasks.release",
    errors=(TaskNotFound, InvalidTransition, StaleAttempt),
    emits=(TaskReleased, TaskReady),
    example={"id": EXAMPLE_ID, "attempt": 1, "reason": "out of context"},
):
    """Give a claimed task back, unfinished; it is pending again."""

    id: TaskId
    attempt: Attempt
    reason: Reason


class CompleteTask(
    Command[Task],
    subject="db.tasks.complete",
    errors=(TaskNotFound, InvalidTransition, StaleAttempt),
    emits=(TaskCompleted, TaskLateCompletion, TaskReady),
    example={"id": EXAMPLE_ID, "attempt": 1, "summary": "Added the column, backfilled it."},
):
    """Complete a task in progress; its summary becomes context for the tasks that depend on it."""

    id: TaskId
    attempt: Attempt | None = None
    """The attempt of the claim. A result of an attempt that is over is kept as a late result while
    there is room for it: up to a hundred of them with 256 KiB of JSON together, or a single one
    that is larger. The refusal says whether it is ``kept``; ``db.tasks.accept_late`` makes it the
    result of the task. Without an attempt the present state alone decides."""
    summary: Summary | None = None
    result: Json | None = None


class BlockTask(
    Command[Task],
    subject="db.tasks.block",
    errors=(TaskNotFound, InvalidTransition, StaleAttempt),
    emits=(TaskBlocked,),
    example={"id": EXAMPLE_ID, "attempt": 1, "reason": "The API key is missing."},
):
    """Say that a task cannot go on, and why; a person has to look at it."""

    id: TaskId
    attempt: Attempt | None = None
    """The attempt of the claim. Without it the present state alone decides."""
    reason: Reason


class RetryTask(
    Command[Task],
    subject="db.tasks.retry",
    errors=(TaskNotFound, InvalidTransition, InitiativeClosed),
    emits=(TaskRetried, TaskReady),
    example={"id": EXAMPLE_ID},
):
    """Let a blocked task be tried again, with all its retries; its phase is taken up again."""

    id: TaskId


class AcceptLateResult(
    Command[Task],
    subject="db.tasks.accept_late",
    errors=(TaskNotFound, LateResultNotFound),
    emits=(TaskCompleted, TaskUpdated, TaskReady),
    example={"id": EXAMPLE_ID, "attempt": 1},
):
    """Make the last late result of an attempt the result of its task.

    That completes the task, whatever state it is in; of a completed one the result is replaced.
    Of a late result that is ``shortened`` the task gets what is left.
    """

    id: TaskId
    attempt: Attempt
