"""What tasks may become, decided without looking anything up."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from bus.contract import InvalidTransition
from bus.handling import Decision
from contracts.planning.initiatives import Initiative
from contracts.planning.phases import Phase
from contracts.planning.tasks import (
    DifferentInitiatives,
    NewTask,
    StaleAttempt,
    Task,
    TaskBlocked,
    TaskRetried,
)
from handlers.planning.states import TASK

MAX_RETRIES = 3
"""How often a task is tried again after it was lost; then a person has to look."""

UNCLAIMED: dict[str, Any] = {"claimed_by": None, "lease_expires_at": None, "lease_seconds": None}


def new_task(
    command: NewTask,
    phase: Phase | None,
    initiative: Initiative | None,
    parent: Task | None,
    *,
    id_: UUID,
    now: datetime,
) -> Task:
    """The task that a request describes, in the initiative that it and its relations agree on."""
    initiative_id = initiative.id if initiative else None
    if phase is not None:
        if initiative_id not in {None, phase.initiative_id}:
            raise DifferentInitiatives(entity="task", id=id_, other_id=phase.id)
        initiative_id = phase.initiative_id
    elif initiative is None and parent is not None:
        initiative_id = parent.initiative_id
    if parent is not None and parent.initiative_id != initiative_id:
        raise DifferentInitiatives(entity="task", id=id_, other_id=parent.id)
    given = command.model_dump(include=NewTask.model_fields.keys() - {"id"})
    related = {"initiative_id": initiative_id, "parent_task_id": parent.id if parent else None}
    untouched = {"retry_count": 0, "attempt": 0, "late_results": [], **UNCLAIMED}
    return Task.first(id=id_, now=now, **given | related | untouched)


def require_attempt(task: Task, attempt: int, action: str) -> None:
    """Refuse unless the task is in progress with this attempt."""
    if is_over(task, attempt):
        raise refusal(task, attempt, action)


def is_over(task: Task, attempt: int) -> bool:
    """Whether an attempt has lost its task, to another attempt, the queue or its completion."""
    return attempt != task.attempt or task.status != "in_progress"


def refusal(task: Task, attempt: int, action: str) -> StaleAttempt | InvalidTransition:
    """What an attempt is told: who has the task now, or that this very attempt has completed it."""
    if attempt == task.attempt and task.status == "completed":
        return TASK.refusal(task, action)
    return StaleAttempt(
        id=task.id,
        attempt=attempt,
        current_attempt=task.attempt,
        task_status=task.status,
        claimed_by=task.claimed_by,
    )


def lose_agent(task: Task, *, now: datetime) -> Decision[Task]:
    """The task of an agent that crashed: tried again, or blocked when no retry is left."""
    TASK.require(task, "lose_agent")
    if task.retry_count < MAX_RETRIES:
        freed = task.evolve(now, status="pending", retry_count=task.retry_count + 1, **UNCLAIMED)
        return Decision(freed, TaskRetried(task=freed))

    reason = f"It was lost {MAX_RETRIES + 1} times; its agent crashed in attempt {task.attempt}."
    blocked = task.evolve(now, status="blocked", blocked_reason=reason, **UNCLAIMED)

    return Decision(blocked, TaskBlocked(task=blocked, previous_status=task.status))
