"""What the contracts of tasks are made of: errors, parts of replies and of requests."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from bus.contract import (
    AgentId,
    Attempt,
    Conflict,
    Count,
    ExternalRef,
    Id,
    Json,
    JsonObject,
    Markdown,
    Name,
    NotFound,
    Position,
    Reason,
    Reply,
    Request,
    Summary,
    Text,
    Time,
    Title,
)
from contracts.planning._fields import PhaseId, PhaseStatus
from contracts.planning.initiatives import ExecutionMode, InitiativeId, InitiativeStatus

TaskId = Id
TaskStatus = Literal["pending", "in_progress", "completed", "blocked"]
TaskCategory = Literal[
    "execute", "research", "discuss", "plan", "detail", "refine", "verify", "merge", "review"
]
TaskPriority = Literal["low", "medium", "high"]

Shortened = Literal[
    "phase.content",
    "parent.summary",
    "children.summary",
    "dependencies.summary",
    "children",
    "dependencies",
    "task.late_results",
    "task.result",
    "task.summary",
    "task.description",
]

LocalRef = Annotated[Text, StringConstraints(min_length=1, max_length=200)]
"""A name that items of one request call each other by, 1–200 characters."""


class TaskNotFound(NotFound, detail="task {id} does not exist"):
    """There is no such task."""

    id: TaskId


class LateResultNotFound(NotFound, detail="task {id} has no late result of attempt {attempt}"):
    """No result of this attempt waits to be accepted."""

    id: TaskId
    attempt: int


class StaleAttempt(Conflict):
    """The attempt is not the task's current one: someone else may have it now.

    Where ``kept`` is true, what ``db.tasks.complete`` brought is a late result of the task, which
    ``db.tasks.accept_late`` makes its result; where it is false, nothing of it is kept.
    """

    id: TaskId
    attempt: int
    current_attempt: int
    task_status: TaskStatus
    claimed_by: AgentId | None = None
    """Who has the task now; absent when nobody has."""
    kept: bool = False
    """Whether the task has what was brought as a late result, to be accepted by
    ``db.tasks.accept_late``; false where there was no room for it, and of all but completions."""

    @property
    def detail(self) -> str:
        """That the attempt is over, or never was, and what the task is now."""
        was = 1 <= self.attempt <= self.current_attempt
        said = f"attempt {self.attempt} of task {self.id} {'is over' if was else 'never was'}"
        return f"{said}; it is {self.task_status}, attempt {self.current_attempt}"


class LateResult(Reply):
    """What an attempt brought after the task had been taken from it."""

    attempt: Attempt
    summary: Summary | None
    result: Json | None
    received_at: Time = Field(strict=False)  # text in a jsonb column
    shortened: bool = False
    """Whether its result was left out, or its summary cut, to make room for what the task became;
    what was brought is whole in ``task.late_completion``."""


class TaskBrief(Reply):
    """A task in a few words, as context for another one."""

    id: TaskId
    name: Title
    status: TaskStatus
    summary: Summary | None
    """Its first 4,000 characters."""


class PhaseBrief(Reply):
    """The phase of a task."""

    id: PhaseId
    name: Title
    status: PhaseStatus
    content: JsonObject | None


class InitiativeBrief(Reply):
    """The initiative of a task."""

    id: InitiativeId
    name: Title
    status: InitiativeStatus
    branch: str | None
    execution_mode: ExecutionMode


class TaskQueue(Reply):
    """How many tasks are in which state; ``ready`` and ``waiting`` are the pending ones."""

    ready: Count
    waiting: Count
    in_progress: Count
    blocked: Count
    completed: Count


class TaskContents(Reply):
    """What belonged to a task and went along when it was deleted."""

    children: Count
    """The tasks below it, at any depth."""
    dependencies: Count
    """The dependencies of and on all these tasks."""


class TaskDeletion(Reply):
    """What was deleted."""

    id: TaskId
    deleted: TaskContents


class NewTaskRef(Reply):
    """A task that was made."""

    ref: LocalRef | None
    """What the request called it."""
    id: TaskId


class NewTasks(Reply):
    """The tasks that were made, in the order of the request."""

    items: list[NewTaskRef]


class NewTask(Request):
    """What a task is when it is made."""

    id: TaskId | None = None
    """Made by the service when it is left out."""
    initiative_id: InitiativeId | None = None
    """Left out, it is that of the phase or of the parent."""
    phase_id: PhaseId | None = None
    parent_task_id: TaskId | None = None
    name: Title
    description: Markdown | None = None
    type: Name = "auto"
    category: TaskCategory = "execute"
    priority: TaskPriority = "medium"
    position: Position = 0
    external_ref: ExternalRef | None = None
    """Its id in the plan that it comes from; unique within the initiative."""
    status: Literal["pending", "completed", "blocked"] = "pending"
    """Where an existing plan is brought in: how far the task is already."""
    summary: Summary | None = None
    """Only of a completed task."""
    result: Json | None = None
    """Only of a completed task."""
    blocked_reason: Reason | None = None
    """Of a blocked task, and only of one."""

    @model_validator(mode="after")
    def _fits_its_status(self) -> Self:
        if (self.status == "blocked") != (self.blocked_reason is not None):
            raise ValueError("a blocked task, and no other, has a blocked_reason")
        if self.status != "completed" and (self.summary is not None or self.result is not None):
            raise ValueError("only a completed task has a summary or a result")
        return self


class NewTaskItem(NewTask):
    """One of many tasks; the others of the request are named by their ``ref``."""

    ref: LocalRef | None = None
    parent: LocalRef | None = None
    """The ``ref`` of another item, in place of ``parent_task_id``."""
    depends_on: list[LocalRef] = Field(default=[], max_length=200)
    """Each the ``ref`` of another item or the id of a task that exists."""

    @model_validator(mode="after")
    def _one_parent(self) -> Self:
        if self.parent is not None and self.parent_task_id is not None:
            raise ValueError("parent and parent_task_id exclude each other")
        return self


def distinct_refs(items: list[NewTaskItem]) -> list[NewTaskItem]:
    refs = [item.ref for item in items if item.ref is not None]
    if len(refs) != len(set(refs)):
        twice = next(ref for ref in refs if refs.count(ref) > 1)
        raise ValueError(f"the ref {twice!r} stands twice")
    return items
