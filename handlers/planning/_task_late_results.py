"""What becomes of results that came after their task had been taken from its attempt.

They are kept for a person to accept, as many as there is room for, and never stand in the way of
what happens to their task: where it would be too large with them, they are made lighter first.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from pydantic_core import to_json

from bus.contract import Refusal
from bus.handling import Decision
from contracts.planning.tasks import (
    AcceptLateResult,
    CompleteTask,
    LateResult,
    LateResultNotFound,
    StaleAttempt,
    Task,
    TaskCompleted,
    TaskLateCompletion,
    TaskUpdated,
)
from handlers.planning.task_rules import UNCLAIMED, refusal

MAX_LATE_RESULTS = 100
"""How many late results a task keeps; whoever brings more is in a loop."""

MAX_LATE_BYTES = 256 * 1024
"""Bytes of JSON that late results may have together; a single one may have what a task has."""

MAX_TASK_BYTES = 480 * 1024
"""Bytes of JSON that a task may have with late results: what an entity may have in a message of
1 MiB, less what a claim or a state adds later."""

SUMMARIES = (1_000, 100, 0)
"""Characters that are left of summaries where it is not enough to leave out results."""


def keep_late_result(command: CompleteTask, task: Task, now: datetime) -> Decision[Task]:
    """Refuse, and keep what the attempt brought if there is room and it is not known already."""
    assert command.attempt is not None
    late = LateResult(
        attempt=command.attempt, summary=command.summary, result=command.result, received_at=now
    )
    told = refusal(task, late.attempt, "complete")
    if not 1 <= late.attempt <= task.attempt:
        return Decision.unchanged(task, refusal=told)
    if _is_known(late, task):
        return Decision.unchanged(task, refusal=_kept(told))
    kept = task.evolve(now, late_results=[*task.late_results, late])
    if not _has_room(kept):
        return Decision.unchanged(task, refusal=told)

    return Decision(
        kept,
        TaskLateCompletion(task=kept, late_result=late),
        refusal=_kept(told),
        otherwise=told,
    )


def take_late_result(command: AcceptLateResult, task: Task, now: datetime) -> Decision[Task]:
    """Complete the task with the last late result of the attempt, in place of any other."""
    brought = [late for late in task.late_results if late.attempt == command.attempt]
    if not brought:
        raise LateResultNotFound(id=task.id, attempt=command.attempt)

    taken = brought[-1]
    accepted = evolve(
        task,
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


def evolve(task: Task, now: datetime, **changes: Any) -> Task:
    """The task as it is after a change, with late results that leave room for it."""
    changed = task.evolve(now, **changes)
    if not changed.late_results or (over := len(changed.encoded()) - MAX_TASK_BYTES) <= 0:
        return changed
    lighter = _lighter(changed.late_results, over)
    return task.evolve(now, **changes | {"late_results": lighter})


def _lighter(late_results: Sequence[LateResult], over: int) -> list[LateResult]:
    """The same with so many bytes less, if possible; the largest give first, results first."""
    lighter = list(late_results)
    for shorten in _steps():
        sizes = [len(to_json(late)) for late in lighter]
        for place in sorted(range(len(lighter)), key=sizes.__getitem__, reverse=True):
            if over <= 0:
                return lighter
            lighter[place] = shorten(lighter[place])
            over -= sizes[place] - len(to_json(lighter[place]))
    return lighter


def _steps() -> Iterator[Callable[[LateResult], LateResult]]:
    """What to leave out of late results, one step after the other."""
    yield _without_result
    for characters in SUMMARIES:
        yield partial(_with_less_summary, characters=characters)


def _without_result(late: LateResult) -> LateResult:
    if late.result is None:
        return late
    return late.model_copy(update={"result": None, "shortened": True})


def _with_less_summary(late: LateResult, characters: int) -> LateResult:
    if late.summary is None or len(late.summary) <= characters:
        return late
    return late.model_copy(update={"summary": late.summary[:characters], "shortened": True})


def _has_room(kept: Task) -> bool:
    """Whether a task may have its late results, the last of which is new."""
    late = kept.late_results
    return (
        len(late) <= MAX_LATE_RESULTS
        and (len(late) == 1 or len(to_json(late)) <= MAX_LATE_BYTES)
        and len(kept.encoded()) <= MAX_TASK_BYTES
    )


def _is_known(late: LateResult, task: Task) -> bool:
    """Whether the task has this result, as its own or as a late one."""
    known = [*task.late_results]
    if task.status == "completed":
        own = {"attempt": task.attempt, "summary": task.summary, "result": task.result}
        known.append(late.model_copy(update=own))
    return _text(late) in map(_text, known)


def _text(late: LateResult) -> str:
    """What was brought, as JSON: there, unlike here, true is not 1."""
    return json.dumps([late.attempt, late.summary, late.result], sort_keys=True)


def _kept(told: Refusal) -> Refusal:
    """The same refusal, which says that the late result is kept if it can."""
    if not isinstance(told, StaleAttempt):
        return told
    return StaleAttempt(**{name: getattr(told, name) for name in told.details} | {"kept": True})
