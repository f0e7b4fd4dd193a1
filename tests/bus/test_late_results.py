"""A late result is kept while there is room, and never keeps its task from anything."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.kit.ids import uuid7
from bus.storage.sizes import limit
from contracts.planning.tasks import (
    BlockTask,
    ClaimTasks,
    CompleteTask,
    NewTask,
    ReleaseTask,
    StaleAttempt,
    Task,
    UpdateTask,
)
from fleetbus.server.service import Service
from handlers.planning import tasks
from handlers.planning._task_late_results import MAX_LATE_RESULTS, MAX_TASK_BYTES
from handlers.planning.task_claims import claim_task
from handlers.planning.task_rules import new_task
from tests.bus.asking import Asker, Got, assert_problem
from tests.kit.outbox import Outbox

MESSAGE = 1024 * 1024
NOW = datetime(2026, 1, 1, tzinfo=UTC)


async def second_attempt(ask: Asker) -> str:
    """A task that was taken from its first attempt and is in progress with its second."""
    id_ = str((await ask("db.tasks.create", {"name": "a"})).body["id"])
    assert (await ask("db.tasks.claim", {"agent_id": "first"})).status == 200
    released = await ask("db.tasks.release", {"id": id_, "attempt": 1, "reason": "r"})
    assert released.status == 200
    assert (await ask("db.tasks.claim", {"agent_id": "second"})).status == 200
    return id_


async def bring(ask: Asker, task: str, summary: str, size: int) -> Got:
    body = {"id": task, "attempt": 1, "summary": summary, "result": "x" * size}
    got = await ask("db.tasks.complete", body)
    assert_problem(got, 409, "stale_attempt")
    return got


async def late_results(ask: Asker, task: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await ask("db.tasks.get", {"id": task})).body["late_results"]
    return found


class TestWhatIsKept:
    async def test_the_refusal_says_it(self, ask: Asker) -> None:
        task = await second_attempt(ask)

        said = [(await bring(ask, task, str(n), 100_000)).body["kept"] for n in range(4)]
        again = (await bring(ask, task, "0", 100_000)).body["kept"]

        assert (said, again) == ([True, True, False, False], True)
        kept = await late_results(ask, task)
        assert [(late["summary"], late["shortened"]) for late in kept] == [("0", 0), ("1", 0)]

    async def test_a_single_one_may_be_as_large_as_a_result(self, ask: Asker) -> None:
        task = await second_attempt(ask)

        got = await bring(ask, task, "界" * 20_000, 262_000)

        assert got.body["kept"] is True
        assert len((await late_results(ask, task))[0]["result"]) == 262_000

    async def test_a_hundred_of_them(self, ask: Asker) -> None:
        task = await second_attempt(ask)

        said = [(await bring(ask, task, str(n), 1)).body["kept"] for n in range(102)]

        assert said == [True] * MAX_LATE_RESULTS + [False] * 2

    async def test_where_the_task_takes_all_the_room(self, ask: Asker) -> None:
        task = await second_attempt(ask)
        wide = {"id": task, "description": "\x1b" * 60_000}
        assert (await ask("db.tasks.update", wide)).status == 200

        got = await bring(ask, task, "s", 200_000)

        assert got.body["kept"] is False
        assert await late_results(ask, task) == []

    async def test_where_messages_are_smaller(
        self, ask: Asker, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        task = await second_attempt(ask)
        monkeypatch.setattr(service.dispatcher._executor, "_max_payload", lambda: 256 * 1024)

        got = await bring(ask, task, "s", 150_000)

        assert got.body["kept"] is False
        assert await late_results(ask, task) == []

    @pytest.mark.parametrize("verb", ["renew", "release", "block"])
    async def test_other_commands_bring_nothing(self, ask: Asker, verb: str) -> None:
        task = await second_attempt(ask)
        body = {"id": task, "attempt": 1} | ({} if verb == "renew" else {"reason": "r"})

        got = await ask(f"db.tasks.{verb}", body)

        assert_problem(got, 409, "stale_attempt")
        assert got.body["kept"] is False

    @pytest.mark.parametrize(
        ("attempt", "said"), [(0, "never existed"), (1, "is over"), (99, "never existed")]
    )
    async def test_what_is_said_of_the_attempt(self, ask: Asker, attempt: int, said: str) -> None:
        task = await second_attempt(ask)

        got = await ask("db.tasks.complete", {"id": task, "attempt": attempt})

        assert_problem(got, 409, "stale_attempt")
        assert f"attempt {attempt} of task {task} {said}" in got.body["detail"]
        assert got.body["kept"] is (attempt == 1)


class TestTheyLeaveRoom:
    @pytest.mark.parametrize(
        ("subject", "body"),
        [
            ("db.tasks.complete", {"attempt": 2, "result": "y" * 260_000}),
            ("db.tasks.block", {"attempt": 2, "reason": "\x1by" * 1_000}),
            ("db.tasks.update", {"description": "\x1b" * 60_000}),
        ],
    )
    async def test_for_a_command(self, ask: Asker, subject: str, body: dict[str, Any]) -> None:
        task = await second_attempt(ask)
        for n, size in enumerate([1_000, 160_000, 90_000, 160_000, 160_000]):
            await bring(ask, task, str(n), size)
        if subject == "db.tasks.block":
            wide = {"id": task, "description": "\x1b" * 39_700}
            assert (await ask("db.tasks.update", wide)).status == 200
        whole = await late_results(ask, task)
        assert [late["shortened"] for late in whole] == [False] * 3

        got = await ask(subject, {"id": task} | body)

        assert got.status == 200
        assert len(got.data) <= MAX_TASK_BYTES
        left = got.body["late_results"]
        assert [late["shortened"] for late in left] == [False, True, False]
        assert left[1] == whole[1] | {"result": None, "shortened": True}
        assert [left[0], left[2]] == [whole[0], whole[2]]

    @pytest.mark.parametrize("verb", ["complete", "block"])
    async def test_where_more_were_stored_before(
        self, ask: Asker, db: AsyncConnection, verb: str
    ) -> None:
        task = await second_attempt(ask)
        late = {"attempt": 1, "summary": "s", "result": "x" * 165_000, "received_at": str(NOW)}
        await db.execute(
            text("UPDATE planning.tasks SET late_results = CAST(:late AS jsonb)"),
            {"late": json.dumps([late] * 3)},
        )
        ending = {"result": "y" * 200_000} if verb == "complete" else {"reason": "r" * 2_000}

        got = await ask(f"db.tasks.{verb}", {"id": task, "attempt": 2} | ending)

        assert (got.status, len(got.body["late_results"])) == (200, 3)
        assert sum(late["shortened"] for late in got.body["late_results"]) in {1, 2}

    async def test_what_is_left_can_be_accepted(
        self, ask: Asker, db: AsyncConnection, outbox: Outbox
    ) -> None:
        task = await second_attempt(ask)
        await bring(ask, task, "late", 260_000)
        done = {"id": task, "attempt": 2, "summary": "s", "result": "y" * 260_000}
        assert (await ask("db.tasks.complete", done)).status == 200

        got = await ask("db.tasks.accept_late", {"id": task, "attempt": 1})

        assert got.status == 200
        assert (got.body["summary"], got.body["result"]) == ("late", None)
        told = {row.type: row.data for row in await outbox.all()}
        assert len(told["task.late_completion"]["late_result"]["result"]) == 260_000


TEXTS = st.sampled_from(["x", "é", "界", "\x1b"])
SUMMARIES = st.builds(lambda letter, length: letter * length, TEXTS, st.integers(0, 20_000))
RESULTS = st.integers(0, 262_000).map(lambda length: "x" * length)


class TestHistories:
    def test_a_task_with_late_results_may_be_claimed_and_ended(self) -> None:
        assert limit(Task, MESSAGE) > MAX_TASK_BYTES + 6 * 2_000

    @examples(max_examples=40, deadline=None)
    @given(
        st.lists(st.tuples(st.booleans(), SUMMARIES, RESULTS), max_size=130),
        SUMMARIES,
        RESULTS,
        st.builds(lambda letter, length: letter * length, TEXTS, st.integers(0, 2_000)),
    )
    @example(
        [(False, "\x1b" * n, "") for n in (20_000, 19_999)], "\x1b" * 20_000, "x" * 262_000, ""
    )
    @example(
        [(False, f"{n}" * 800, "") for n in range(100, 200)], "\x1b" * 20_000, "x" * 262_000, ""
    )
    def test_the_present_attempt_always_completes(
        self, brought: list[tuple[bool, str, str]], summary: str, result: str, description: str
    ) -> None:
        task = in_progress(description)
        for again, late, large in brought:
            if again:
                freed = tasks.release_task(
                    ReleaseTask(id=task.id, attempt=task.attempt, reason="r"), task, now=NOW
                )
                task = claim_task(freed.entity, ClaimTasks(agent_id="\x1b" * 200), NOW)
            task = with_late(task, late, large)

        longer = UpdateTask(id=task.id, description=description + "\x1b" * 5_000)
        updated = tasks.update_task(longer, task, None, now=NOW).entity
        command = CompleteTask(id=task.id, attempt=task.attempt, summary=summary, result=result)
        done = tasks.complete_task(command, updated, now=NOW).entity
        block = BlockTask(id=task.id, attempt=task.attempt, reason="\x1bx" * 1_000)
        blocked = tasks.block_task(block, updated, now=NOW).entity

        for after in (updated, done, blocked):
            assert len(after.encoded()) <= MAX_TASK_BYTES
            assert len(after.late_results) == len(task.late_results)
        assert (done.summary, done.result) == (summary, result)
        for before, now in zip(task.late_results, done.late_results, strict=True):
            assert now.shortened or now == before
            assert (before.summary or "").startswith(now.summary or "")


def in_progress(description: str) -> Task:
    given = NewTask(name="a task", description=description)
    task = new_task(given, None, None, None, id_=uuid7(), now=NOW)
    freed = claim_task(task, ClaimTasks(agent_id="first"), NOW)
    release = ReleaseTask(id=task.id, attempt=1, reason="r")
    return claim_task(
        tasks.release_task(release, freed, now=NOW).entity, ClaimTasks(agent_id="b"), NOW
    )


def with_late(task: Task, summary: str, result: str) -> Task:
    """The task once its first attempt has brought this; it has it if and only if that is said."""
    command = CompleteTask(id=UUID(str(task.id)), attempt=1, summary=summary, result=result)
    decision = tasks.complete_task(command, task, now=NOW)
    assert isinstance(decision.refusal, StaleAttempt)
    found = [(late.summary, late.result) for late in decision.entity.late_results]
    assert decision.refusal.kept == ((summary, result) in found)
    return decision.entity
