import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.errors import InvalidTransition
from contracts.planning.tasks import (
    AcceptLateResult,
    BlockTask,
    ClaimTasks,
    CompleteTask,
    GetTask,
    LateResultNotFound,
    ReleaseTask,
    RenewTask,
    StaleAttempt,
    Task,
)
from fleetbus.client import Bus
from tests.counting import Counted
from tests.kit.outbox import Outbox
from tests.planning.arrange import add_claimed, add_task, row

Statements = Callable[[], AbstractContextManager[Counted]]

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


class TestRenewTask:
    async def test_no_event_and_the_same_version(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        id_ = await add_claimed(db, lease_expires_at=LONG_AGO)

        task = await bus.call(RenewTask(id=id_, attempt=1, lease_seconds=60))

        assert task.lease_expires_at is not None
        assert task.lease_expires_at > LONG_AGO
        assert task.version == 1
        assert await outbox.all() == []

    async def test_an_attempt_that_is_over(self, bus: Bus, db: AsyncConnection) -> None:
        id_ = await add_claimed(db, attempt=2, claimed_by="other")

        with pytest.raises(StaleAttempt) as refused:
            await bus.call(RenewTask(id=id_, attempt=1))

        assert (refused.value.current_attempt, refused.value.claimed_by) == (2, "other")


class TestReleaseTask:
    async def test_back_to_the_queue(self, bus: Bus, db: AsyncConnection, outbox: Outbox) -> None:
        id_ = await add_claimed(db)

        task = await bus.call(ReleaseTask(id=id_, attempt=1, reason="tired"))

        assert (task.status, task.claimed_by, task.lease_expires_at) == ("pending", None, None)
        event, ready = await outbox.all()
        assert (event.type, ready.type) == ("task.released", "task.ready")
        assert (event.data["released_by"], event.data["reason"]) == ("agent", "tired")
        assert [one.task.attempt for one in (await bus.call(ClaimTasks(agent_id="b"))).tasks] == [2]

    async def test_an_attempt_that_is_over(self, bus: Bus, db: AsyncConnection) -> None:
        id_ = await add_task(db, attempt=1)

        with pytest.raises(StaleAttempt) as refused:
            await bus.call(ReleaseTask(id=id_, attempt=1, reason="x"))

        assert refused.value.task_status == "pending"


class TestBlockTask:
    async def test_an_attempt_that_is_over(self, bus: Bus, db: AsyncConnection) -> None:
        id_ = await add_claimed(db, attempt=2)

        with pytest.raises(StaleAttempt):
            await bus.call(BlockTask(id=id_, attempt=1, reason="x"))

        assert (await bus.call(BlockTask(id=id_, attempt=2, reason="x"))).status == "blocked"

    @pytest.mark.parametrize("status", ["pending", "in_progress"])
    async def test_by_a_person(
        self, bus: Bus, db: AsyncConnection, status: str, outbox: Outbox
    ) -> None:
        id_ = await add_claimed(db, status=status)

        task = await bus.call(BlockTask(id=id_, reason="no key"))

        assert (task.status, task.blocked_reason, task.claimed_by) == ("blocked", "no key", None)
        (event,) = await outbox.all()
        assert (event.type, event.data["previous_status"]) == ("task.blocked", status)

    @pytest.mark.parametrize("status", ["completed", "blocked"])
    async def test_not_what_is_over(self, bus: Bus, db: AsyncConnection, status: str) -> None:
        id_ = await add_task(db, status=status)

        with pytest.raises(InvalidTransition):
            await bus.call(BlockTask(id=id_, reason="x"))


class TestCompleteTask:
    async def test_done(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox, statements: Statements
    ) -> None:
        id_ = await add_claimed(db, lease_expires_at=LONG_AGO)

        with statements() as counted:
            task = await bus.call(CompleteTask(id=id_, attempt=1, summary="s", result={"a": 1}))

        # clock, key and lock; update, outbox and key, since nothing depends on it
        assert counted.total == 2, counted.texts
        assert (task.status, task.summary, task.result) == ("completed", "s", {"a": 1})
        assert (task.claimed_by, task.lease_expires_at, task.version) == (None, None, 2)
        (event,) = await outbox.all()
        assert (event.type, event.data["previous_status"]) == ("task.completed", "in_progress")

    async def test_by_a_person(self, bus: Bus, db: AsyncConnection) -> None:
        id_ = await add_claimed(db)

        assert (await bus.call(CompleteTask(id=id_))).status == "completed"

    async def test_by_a_person_only_what_is_in_progress(
        self, bus: Bus, db: AsyncConnection
    ) -> None:
        with pytest.raises(InvalidTransition):
            await bus.call(CompleteTask(id=await add_task(db)))

    @pytest.mark.parametrize("now", ["in_progress", "pending", "blocked", "completed"])
    async def test_a_late_result_is_kept_once(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox, now: str
    ) -> None:
        id_ = await add_task(db, status=now, attempt=2, claimed_by="other")

        for _ in range(2):
            with pytest.raises(StaleAttempt) as refused:
                await bus.call(CompleteTask(id=id_, attempt=1, summary="late", result=[True]))
            assert refused.value.claimed_by == "other"
        with pytest.raises(StaleAttempt):
            await bus.call(CompleteTask(id=id_, attempt=1, summary="late", result=[1]))

        task = await bus.call(GetTask(id=id_))
        assert (task.status, task.version) == (now, 3)
        kept = [(late.attempt, late.summary, late.result) for late in task.late_results]
        assert kept == [(1, "late", [True]), (1, "late", [1])]
        events = await outbox.all()
        assert [event.type for event in events] == ["task.late_completion"] * 2
        assert events[0].data["late_result"]["summary"] == "late"

    async def test_the_same_result_again(self, bus: Bus, db: AsyncConnection) -> None:
        id_ = await add_claimed(db)
        done = await bus.call(CompleteTask(id=id_, attempt=1, summary="s"))

        with pytest.raises(InvalidTransition) as refused:
            await bus.call(CompleteTask(id=id_, attempt=1, summary="s"))

        assert (refused.value.from_, refused.value.to) == ("completed", "completed")
        assert await bus.call(GetTask(id=id_)) == done

    @pytest.mark.parametrize("attempt", [0, 3])
    async def test_an_attempt_that_never_was(
        self, bus: Bus, db: AsyncConnection, attempt: int
    ) -> None:
        id_ = await add_claimed(db, attempt=2)

        with pytest.raises(StaleAttempt):
            await bus.call(CompleteTask(id=id_, attempt=attempt, summary="s"))

        assert (await row(db, id_)).late_results == []

    async def test_one_of_eight_at_once(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        id_ = await add_claimed(db)

        answers = await asyncio.gather(
            *(bus.call(CompleteTask(id=id_, attempt=1, summary=str(n))) for n in range(8)),
            return_exceptions=True,
        )

        (done,) = [answer for answer in answers if isinstance(answer, Task)]
        assert sum(isinstance(answer, InvalidTransition) for answer in answers) == 7
        task = await bus.call(GetTask(id=id_))
        assert task.summary == done.summary
        assert {late.summary for late in task.late_results} | {done.summary} == set("01234567")
        assert (await outbox.types()).count("task.completed") == 1


class TestAcceptLateResult:
    @pytest.mark.parametrize("status", ["pending", "in_progress", "blocked"])
    async def test_it_becomes_the_result(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox, status: str
    ) -> None:
        id_ = await add_claimed(db, attempt=2, status=status)
        for summary in ("first", "last"):
            with pytest.raises(StaleAttempt):
                await bus.call(CompleteTask(id=id_, attempt=1, summary=summary))

        task = await bus.call(AcceptLateResult(id=id_, attempt=1))

        assert (task.status, task.summary, task.claimed_by) == ("completed", "last", None)
        assert [late.summary for late in task.late_results] == ["first"]
        event = await outbox.last()
        assert (event.type, event.data["previous_status"]) == ("task.completed", status)

    async def test_in_place_of_another(self, bus: Bus, db: AsyncConnection, outbox: Outbox) -> None:
        id_ = await add_claimed(db, attempt=2)
        await bus.call(CompleteTask(id=id_, attempt=2, summary="worse"))
        with pytest.raises(StaleAttempt):
            await bus.call(CompleteTask(id=id_, attempt=1, summary="better"))

        task = await bus.call(AcceptLateResult(id=id_, attempt=1))

        assert (task.summary, task.late_results) == ("better", [])
        told = await outbox.types()
        assert told == ["task.completed", "task.late_completion", "task.updated"]

    async def test_no_late_result_of_this_attempt(self, bus: Bus, db: AsyncConnection) -> None:
        with pytest.raises(LateResultNotFound):
            await bus.call(AcceptLateResult(id=await add_claimed(db), attempt=1))
