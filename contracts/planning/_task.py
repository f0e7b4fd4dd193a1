"""A task and its events."""

from pydantic import Field

from bus.contract import (
    AgentId,
    Attempt,
    Count,
    Entity,
    Event,
    ExternalRef,
    GoneIds,
    Json,
    LeaseSeconds,
    Markdown,
    Name,
    Position,
    Reason,
    Summary,
    Time,
    Title,
)
from contracts.planning._fields import Incarnation, PhaseId
from contracts.planning._task_parts import (
    LateResult,
    TaskCategory,
    TaskContents,
    TaskId,
    TaskNotFound,
    TaskPriority,
    TaskStatus,
)
from contracts.planning.initiatives import InitiativeId


class Task(Entity, not_found=TaskNotFound):
    """A piece of work that one agent does in one go."""

    initiative_id: InitiativeId | None
    phase_id: PhaseId | None
    parent_task_id: TaskId | None
    name: Title
    description: Markdown | None
    type: Name
    category: TaskCategory
    priority: TaskPriority
    status: TaskStatus
    position: Position
    summary: Summary | None
    result: Json | None
    retry_count: Count
    """How often it was lost (its lease expired or its agent crashed) since it was created, or since
    a person last retried it."""
    blocked_reason: Reason | None
    external_ref: ExternalRef | None
    """Its id in the plan that it was imported from; unique within the initiative."""
    claimed_by: AgentId | None
    attempt: Attempt
    """The fencing token: +1 with each claim."""
    lease_expires_at: Time | None
    """When the claim ends unless it is renewed; a renewal does not change the version."""
    lease_seconds: LeaseSeconds | None = None
    """How long the claim, or its last renewal, holds, in seconds."""
    late_results: list[LateResult]


class TaskCreated(Event, type="task.created"):
    """A task was added to the plan, with its dependencies."""

    task: Task
    depends_on: list[TaskId] = Field(default=[])


class TaskUpdated(Event, type="task.updated"):
    """Fields of a task were changed."""

    task: Task
    moved: bool = False
    """Whether it is now in a different phase."""


class TaskReady(Event, type="task.ready"):
    """An existing task that could not be claimed can be claimed now.

    The last task or phase that it waited for is completed or gone, its phase has started or
    resumed, its initiative is active again, the task above it is no longer blocked, or the task
    itself is pending again. A task that can be claimed as soon as it is created has only
    ``task.created``.
    """

    task: Task


class TaskClaimed(Event, type="task.claimed"):
    """An agent claimed a task, and holds it for as long as its lease lasts."""

    task: Task
    incarnation: Incarnation | None = None
    """Which process of the agent claimed it, if the claim said so."""


class TaskCompleted(Event, type="task.completed"):
    """A task is done; tasks that depend on it may become ready."""

    task: Task
    previous_status: TaskStatus


class TaskLateCompletion(Event, type="task.late_completion"):
    """A result arrived after the task had been taken away from its attempt; it is kept."""

    task: Task
    late_result: LateResult


class TaskBlocked(Event, type="task.blocked"):
    """A task cannot continue until a person has looked at it."""

    task: Task
    previous_status: TaskStatus


class TaskReleased(Event, type="task.released"):
    """An agent gave a task back unfinished."""

    task: Task
    released_by: AgentId | None
    reason: Reason


class TaskLeaseExpired(Event, type="task.lease_expired"):
    """A claim was not renewed in time; the task was taken back."""

    task: Task
    expired_attempt: Attempt
    claimed_by: AgentId | None
    """The agent that had it."""


class TaskRetried(Event, type="task.retried"):
    """A task may be tried again: a person unblocked it, or its agent crashed."""

    task: Task


class TaskDependencyAdded(Event, type="task.dependency_added"):
    """A task now waits for another one."""

    task: Task
    depends_on_task_id: TaskId


class TaskDependencyRemoved(Event, type="task.dependency_removed"):
    """A task no longer waits for another one."""

    task: Task
    depends_on_task_id: TaskId


class TaskDeleted(Event, type="task.deleted"):
    """A task was deleted, and its children with it."""

    task: Task
    """The task as it last was, with its version one higher."""
    deleted: TaskContents
    child_ids: GoneIds = Field(default_factory=list)
