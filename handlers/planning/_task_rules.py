"""What tasks may become, decided without looking anything up."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any
from uuid import UUID

from contracts.errors import InvalidTransition
from contracts.planning._errors import DifferentInitiatives
from contracts.planning.initiatives import Initiative
from contracts.planning.phases import Phase
from contracts.planning.tasks import (
    AcceptLateResult,
    CompleteTask,
    LateResult,
    LateResultNotFound,
    NewTask,
    StaleAttempt,
    Task,
    TaskBlocked,
    TaskCompleted,
    TaskLateCompletion,
    TaskRetried,
    TaskUpdated,
)
from handlers._shapes import Decision
from handlers.planning._states import TASK

MAX_LATE_RESULTS = 100
"""How many late results a task keeps; whoever brings more is in a loop."""

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
    given = command.model_dump(include=set(NewTask.model_fields))
    return Task.model_construct(
        **given
        | {
            "id": id_,
            "version": 1,
            "created_at": now,
            "updated_at": now,
            "initiative_id": initiative_id,
            "parent_task_id": parent.id if parent else None,
            "retry_count": 0,
            "attempt": 0,
            "late_results": [],
        }
        | UNCLAIMED
    )


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


def keep_late_result(command: CompleteTask, task: Task, now: datetime) -> Decision[Task]:
    """Refuse, and keep what the attempt brought unless it is known already."""
    assert command.attempt is not None
    told = refusal(task, command.attempt, "complete")
    late = LateResult(
        attempt=command.attempt, summary=command.summary, result=command.result, received_at=now
    )
    if not 1 <= late.attempt <= task.attempt or _is_known(late, task):
        return Decision(task, refusal=told)

    kept = task.evolve(now, late_results=[*task.late_results, late])

    return Decision(kept, TaskLateCompletion(task=kept, late_result=late), refusal=told)


def take_late_result(command: AcceptLateResult, task: Task, now: datetime) -> Decision[Task]:
    """Complete the task with the last late result of the attempt, in place of any other."""
    brought = [late for late in task.late_results if late.attempt == command.attempt]
    if not brought:
        raise LateResultNotFound(id=task.id, attempt=command.attempt)

    taken = brought[-1]
    accepted = task.evolve(
        now,
        status="completed",
        summary=taken.summary,
        result=taken.result,
        blocked_reason=None,
        late_results=[late for late in task.late_results if late is not taken],
        **UNCLAIMED,
    )
    if task.status == "completed":
        return Decision(accepted, TaskUpdated(task=accepted))

    return Decision(accepted, TaskCompleted(task=accepted, previous_status=task.status))


def _is_known(late: LateResult, task: Task) -> bool:
    """Whether the task has this result, as its own or as a late one, or has too many."""
    known = [*task.late_results]
    if task.status == "completed":
        own = {"attempt": task.attempt, "summary": task.summary, "result": task.result}
        known.append(late.model_copy(update=own))
    return len(known) >= MAX_LATE_RESULTS or _text(late) in map(_text, known)


def _text(late: LateResult) -> str:
    """What was brought, as JSON: there, unlike here, true is not 1."""
    return json.dumps([late.attempt, late.summary, late.result], sort_keys=True)
