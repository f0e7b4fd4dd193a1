"""Batched or one by one, a history of commands has the same replies, states and events."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.running.admission import Limits
from bus.running.calls import Answer
from bus.running.dispatcher import Dispatcher
from bus.running.executor import Executor
from bus.running.registry import Registry
from bus.storage.database import Database
from tests.bus.asking import NOTE, add_tasks

TASKS = 3


@dataclass(frozen=True)
class Step:
    """One command: on which task, with which key, ending how."""

    subject: str
    task: int
    how: str
    key: int | None


STEPS = st.lists(
    st.builds(
        Step,
        subject=st.sampled_from([NOTE, NOTE, "db.tasks.complete"]),
        task=st.integers(0, TASKS),
        how=st.sampled_from(["change", "keep", "refuse", "refuse_and_keep", "violate", "raise"]),
        key=st.none() | st.integers(0, 4),
    ),
    min_size=2,
    max_size=14,
)


WAITS = st.lists(st.sets(st.integers(0, TASKS - 1)), max_size=2)
"""What each of some pending tasks depends on: what follows from completions has to look for it."""


@dataclass
class Pair:
    """Two dispatchers on one database: one that gathers, one that takes each by itself."""

    batched: Dispatcher
    single: Dispatcher


@pytest.fixture
async def pair(database_url: str, registry: Registry) -> AsyncIterator[Pair]:
    database = Database(database_url)
    executor = Executor(registry, database)
    try:
        yield Pair(
            Dispatcher(registry, executor, Limits(batch=64, concurrent_batches=1)),
            Dispatcher(registry, executor, Limits(batch=1, concurrent_batches=1)),
        )
    finally:
        await database.close()


async def run(dispatcher: Dispatcher, steps: list[Step], tasks: list[UUID], run_: str) -> Any:
    """Send all steps of one subject at once, subject after subject, and return what came back."""
    replies: dict[int, Answer] = {}
    for subject in (NOTE, "db.tasks.complete"):
        for number, step in enumerate(steps):
            if step.subject != subject:
                continue
            body: dict[str, Any] = {"id": str(tasks[step.task])}
            if subject == NOTE:
                body |= {"how": step.how, "note": str(number)}
            headers = {} if step.key is None else {"Nats-Msg-Id": f"{run_}-{step.key}"}
            dispatcher.accept(
                dispatcher.registry.operations[subject],
                json.dumps(body).encode(),
                headers,
                partial(replies.__setitem__, number),
            )
        await dispatcher.drained()
    return [_comparable(replies[number], tasks, run_) for number in range(len(steps))]


def _comparable(answer: Answer, tasks: list[UUID], run_: str) -> tuple[Any, ...]:
    """An answer without what differs between any two runs: ids, times, positions.

    Of a command that told nothing itself the position is its transaction's, so its neighbours'.
    """
    body = json.loads(answer.body)
    for name in ("created_at", "updated_at"):
        body.pop(name, None)
    if error := body.pop("error_id", None):
        body["detail"] = body["detail"].replace(error, "")
    shown = json.dumps(body, sort_keys=True)
    for number, task in enumerate(tasks):
        shown = shown.replace(str(task), f"task {number}")
    shown = shown.replace(run_, "run")
    return answer.status, shown, answer.replayed


async def add_waiting(db: AsyncConnection, tasks: list[UUID], waits: list[set[int]]) -> list[UUID]:
    """A pending task for each of the sets, which depends on the tasks in it."""
    waiting = [
        (await add_tasks(db, status="pending", attempt=0, held=bool(others)))[0] for others in waits
    ]
    edge = (
        "INSERT INTO planning.task_dependencies (id, task_id, depends_on_task_id) "
        "VALUES (uuidv7(), :waiting, :task)"
    )
    for id_, others in zip(waiting, waits, strict=True):
        for other in others:
            await db.execute(text(edge), {"waiting": id_, "task": tasks[other]})
    return waiting


async def look(db: AsyncConnection, tasks: list[UUID]) -> Any:
    """The states of the tasks and the events of each, in order."""
    states = "SELECT version, status, summary FROM planning.tasks WHERE id = :id"
    events = (
        "SELECT type, data->'task'->>'version', data->'task'->>'summary' "
        "FROM bus.outbox WHERE entity_id = :entity ORDER BY position"
    )
    found = []
    for task in tasks:
        state = (await db.execute(text(states), {"id": task})).all()
        told = (await db.execute(text(events), {"entity": str(task)})).all()
        found.append((state, told))
    return found


class TestHistories:
    async def test_batched_and_one_by_one_agree(self, pair: Pair, db: AsyncConnection) -> None:
        loop = asyncio.get_running_loop()
        runs = iter(range(1_000_000))

        async def agree(steps: list[Step], waits: list[set[int]]) -> None:
            number = next(runs)
            unknown = UUID(int=number)
            first, second = [[*await add_tasks(db, TASKS), unknown] for _ in range(2)]
            waiting = [await add_waiting(db, tasks, waits) for tasks in (first, second)]
            batched = await run(pair.batched, steps, first, f"batched{number}")
            single = await run(pair.single, steps, second, f"single{number}")
            assert batched == single
            assert await look(db, first + waiting[0]) == await look(db, second + waiting[1])

        @hypothesis_settings(
            max_examples=60,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(STEPS, WAITS)
        def check(steps: list[Step], waits: list[set[int]]) -> None:
            asyncio.run_coroutine_threadsafe(agree(steps, waits), loop).result(30)

        await asyncio.to_thread(check)
