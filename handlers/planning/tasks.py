"""What happens to tasks."""

from datetime import datetime

from contracts.planning.tasks import (
    CompleteTask,
    GetTask,
    LateResult,
    StaleAttempt,
    Task,
    TaskCompleted,
    TaskLateCompletion,
)
from handlers._shapes import Decision, decider, query
from handlers.planning._states import TASK


@query
def get_task(query: GetTask, task: Task) -> Task:  # noqa: ARG001  the id has been used to find it
    return task


@decider
def complete_task(command: CompleteTask, task: Task, *, now: datetime) -> Decision[Task]:
    if _is_over(task, command.attempt):
        return _keep_late_result(command, task, now)
    TASK.require(task, "complete")

    done = task.evolve(
        now,
        status="completed",
        summary=command.summary,
        result=command.result,
        claimed_by=None,
        lease_expires_at=None,
    )

    return Decision(done, TaskCompleted(task=done, previous_status=task.status))


def _is_over(task: Task, attempt: int | None) -> bool:
    """Whether a named attempt has lost its task, to another attempt or to the queue."""
    if attempt is None:
        return False
    return attempt != task.attempt or task.status in {"pending", "blocked"}


def _stale(task: Task, attempt: int) -> StaleAttempt:
    return StaleAttempt(
        id=task.id,
        attempt=attempt,
        current_attempt=task.attempt,
        task_status=task.status,
        claimed_by=task.claimed_by,
    )


def _keep_late_result(command: CompleteTask, task: Task, now: datetime) -> Decision[Task]:
    assert command.attempt is not None
    refusal = _stale(task, command.attempt)
    late = LateResult(
        attempt=command.attempt, summary=command.summary, result=command.result, received_at=now
    )
    known = [kept for kept in task.late_results if kept.attempt == late.attempt]
    if not 1 <= late.attempt <= task.attempt or any(_same(late, kept) for kept in known):
        return Decision(task, refusal=refusal)

    kept = task.evolve(now, late_results=[*task.late_results, late])

    return Decision(kept, TaskLateCompletion(task=kept, late_result=late), refusal=refusal)


def _same(one: LateResult, other: LateResult) -> bool:
    return (one.summary, one.result) == (other.summary, other.result)
