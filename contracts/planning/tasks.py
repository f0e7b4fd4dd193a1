"""Tasks: what one agent does in one go, and who has it."""

from typing import Literal

from contracts._declare import Command, Entity, Event, Query, Reply
from contracts._errors import Conflict, NotFound
from contracts._fields import (
    AgentId,
    Attempt,
    Count,
    ExternalRef,
    Id,
    Json,
    Markdown,
    Name,
    Position,
    Reason,
    Summary,
    Time,
    Title,
)
from contracts.errors import InvalidTransition
from contracts.planning.initiatives import InitiativeId
from contracts.planning.phases import PhaseId

TaskId = Id
TaskStatus = Literal["pending", "in_progress", "completed", "blocked"]
TaskCategory = Literal[
    "execute", "research", "discuss", "plan", "detail", "refine", "verify", "merge", "review"
]
TaskPriority = Literal["low", "medium", "high"]


class TaskNotFound(NotFound, detail="task {id} does not exist"):
    """There is no such task."""

    id: TaskId


class StaleAttempt(
    Conflict,
    detail="attempt {attempt} of task {id} is over; it is {task_status}, attempt {current_attempt}",
):
    """The attempt is not the task's current one: someone else may have it now."""

    id: TaskId
    attempt: int
    current_attempt: int
    task_status: TaskStatus
    claimed_by: AgentId | None = None
    """Who has the task now; absent when nobody has."""


class LateResult(Reply):
    """What an attempt brought after the task had been taken from it."""

    attempt: Attempt
    summary: Summary | None
    result: Json | None
    received_at: Time


class Task(Entity, not_found=TaskNotFound):
    """What one agent does in one go."""

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
    blocked_reason: Reason | None
    external_ref: ExternalRef | None
    claimed_by: AgentId | None
    attempt: Attempt
    """The fencing token: +1 at each claim."""
    lease_expires_at: Time | None
    late_results: list[LateResult]


class TaskCompleted(Event, type="task.completed"):
    """A task is done; what depends on it may become ready."""

    task: Task
    previous_status: TaskStatus


class TaskLateCompletion(Event, type="task.late_completion"):
    """A result came in after the task had been taken from its attempt; it is kept."""

    task: Task
    late_result: LateResult


class GetTask(Query[Task], subject="db.tasks.get", errors=(TaskNotFound,)):
    """One task by its id."""

    id: TaskId


class CompleteTask(
    Command[Task],
    subject="db.tasks.complete",
    errors=(TaskNotFound, InvalidTransition, StaleAttempt),
    emits=(TaskCompleted, TaskLateCompletion),
):
    """Complete a task in progress; its summary becomes context for the tasks that depend on it."""

    id: TaskId
    attempt: Attempt | None = None
    """The attempt of the claim. A result of an attempt that is over is kept as a late result."""
    summary: Summary | None = None
    result: Json | None = None
