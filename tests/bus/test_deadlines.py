"""A deadline is answered when it passes, and what it cut off has stored nothing."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from fleetbus.server.service import Service
from tests.bus.asking import (
    NOTE,
    READ,
    RUN,
    Asker,
    Got,
    add_tasks,
    column_of,
    count_of,
    eventually,
    locked,
    open_transactions,
)
from tests.counting import Counted

pytestmark = pytest.mark.alone

Count = Callable[[], AbstractContextManager[Counted]]

LATE = 0.6
"""Seconds after its deadline by which a request has its answer, on a busy machine."""


async def timed(asked: "asyncio.Future[Got] | asyncio.Task[Got]") -> tuple[Got, float]:
    started = time.monotonic()
    return await asked, time.monotonic() - started


def assert_too_late(got: Got) -> None:
    assert (got.status, got.type) == (504, "deadline_exceeded"), got
    assert got.body["retryable"] is True


class TestBeforeTheWork:
    async def test_a_command_does_not_touch_the_database(
        self, ask: Asker, db: AsyncConnection, statements: Count
    ) -> None:
        [task] = await add_tasks(db)

        with statements() as counted:
            replies = [
                await ask(NOTE, {"id": str(task)}, deadline=-1, key="k"),
                await ask(RUN, {"sql": ["SELECT 1"]}, deadline=-1),
                await ask(READ, {"sql": ["SELECT 1"]}, deadline=-0.001),
                await ask("db.tasks.get", {"id": str(task)}, headers={"Fleet-Deadline": "0"}),
            ]

        for got in replies:
            assert_too_late(got)
        assert counted.texts == []

    async def test_a_request_that_cannot_be_read_says_so_rather(self, ask: Asker) -> None:
        assert (await ask(NOTE, {}, deadline=-1)).status == 400

    async def test_a_deadline_far_away_is_fine(self, ask: Asker) -> None:
        assert (await ask(READ, {"sql": ["SELECT 1"]}, deadline=1e8)).status == 200


class TestDuringTheWork:
    async def test_a_slow_query(self, ask: Asker) -> None:
        got, took = await timed(
            asyncio.ensure_future(ask(READ, {"sql": ["SELECT pg_sleep(20)"]}, deadline=0.3))
        )

        assert_too_late(got)
        assert took < 0.3 + LATE

    async def test_a_slow_handler_stores_nothing(self, ask: Asker, db: AsyncConnection) -> None:
        [task] = await add_tasks(db)
        sql = f"UPDATE planning.tasks SET summary = 'lost' WHERE id = '{task}'"
        body = {"sql": [sql, "SELECT pg_sleep(20)"], "task": str(task)}

        got, took = await timed(asyncio.ensure_future(ask(RUN, body, deadline=0.3, key="k")))

        assert_too_late(got)
        assert took < 0.3 + LATE
        await _nothing_kept(db)
        assert await column_of(db, "summary", task) is None

    async def test_many_short_statements_do_not_add_up_to_more(
        self, ask: Asker, db: AsyncConnection
    ) -> None:
        [task] = await add_tasks(db)
        body = {"sql": ["SELECT pg_sleep(0.2)"] * 20, "task": str(task)}

        got, took = await timed(asyncio.ensure_future(ask(RUN, body, deadline=0.5)))

        assert_too_late(got)
        assert took < 0.5 + LATE
        await _nothing_kept(db)

    async def test_a_decider_that_waits_for_a_lock_stores_nothing(
        self, ask: Asker, db: AsyncConnection
    ) -> None:
        [task] = await add_tasks(db)

        async with locked(db, task):
            got, took = await timed(
                asyncio.ensure_future(ask(NOTE, {"id": str(task)}, deadline=0.4, key="k"))
            )

        assert_too_late(got)
        assert took < 0.4 + LATE
        await _nothing_kept(db)
        assert await column_of(db, "version", task) == 1

    async def test_it_may_be_tried_again_with_the_same_key(
        self, ask: Asker, db: AsyncConnection
    ) -> None:
        [task] = await add_tasks(db)
        async with locked(db, task):
            assert_too_late(await ask(NOTE, {"id": str(task)}, deadline=0.3, key="k"))

        got = await ask(NOTE, {"id": str(task)}, deadline=5, key="k")

        assert (got.status, got.replayed) == (200, False)
        assert await column_of(db, "version", task) == 2


class TestInCompany:
    async def test_each_of_a_batch_has_its_own(self, ask: Asker, db: AsyncConnection) -> None:
        """One row is locked: the deadline of its command is kept, the other commands succeed."""
        stuck, *free = await add_tasks(db, 20)

        async with locked(db, stuck):
            late = asyncio.ensure_future(timed_ask(ask, stuck, 0.5))
            replies = await asyncio.gather(*(ask(NOTE, {"id": str(t)}, deadline=5) for t in free))
            got, took = await late

        assert_too_late(got)
        assert took < 0.5 + LATE
        assert {reply.status for reply in replies} == {200}

    async def test_a_lookup_does_not_wait_for_its_patient_neighbours(
        self, ask: Asker, db: AsyncConnection
    ) -> None:
        [task] = await add_tasks(db)
        await db.execute(text("BEGIN"))
        await db.execute(text("LOCK planning.tasks IN ACCESS EXCLUSIVE MODE"))
        try:
            first = asyncio.ensure_future(ask("db.tasks.get", {"id": str(task)}))
            second = asyncio.ensure_future(ask("db.tasks.get", {"id": str(task)}))
            await asyncio.sleep(0)
            got, took = await timed(
                asyncio.ensure_future(ask("db.tasks.get", {"id": str(task)}, deadline=0.4))
            )
        finally:
            await db.execute(text("ROLLBACK"))

        assert_too_late(got)
        assert took < 0.4 + LATE
        assert [(await other).status for other in (first, second)] == [200, 200]

    async def test_in_the_queue_of_a_busy_operation(
        self, ask: Asker, db: AsyncConnection, service: Service
    ) -> None:
        """Commands on one entity wait for each other; the deadline passes before its turn."""
        [task] = await add_tasks(db)
        stats = service.dispatcher.stats

        async with locked(db, task):
            patient = asyncio.ensure_future(ask(NOTE, {"id": str(task), "note": "1"}))
            await eventually(lambda: stats.in_flight == 1)
            got, took = await timed(
                asyncio.ensure_future(ask(NOTE, {"id": str(task), "note": "2"}, deadline=0.3))
            )
        assert (await patient).status == 200

        assert_too_late(got)
        assert took < 0.3 + LATE
        assert await column_of(db, "summary", task) == "1"

    async def test_when_every_connection_is_taken(
        self, ask: Asker, service: Service, db: AsyncConnection
    ) -> None:
        slow = [
            asyncio.ensure_future(ask(RUN, {"sql": ["SELECT pg_sleep(1)"]}))
            for _ in range(service.settings.pool_write)
        ]
        await eventually(lambda: service.dispatcher.stats.in_flight == len(slow))

        got, took = await timed(asyncio.ensure_future(ask(RUN, {"sql": []}, deadline=0.2)))

        assert_too_late(got)
        assert took < 0.2 + LATE
        assert {(await other).status for other in slow} == {200}

    async def test_nothing_is_left_of_what_was_cut_off(
        self, ask: Asker, service: Service, db: AsyncConnection
    ) -> None:
        body = {"sql": ["SELECT pg_sleep(20)"]}

        replies = await asyncio.gather(
            *(ask(subject, body, deadline=0.3) for subject in (RUN, READ) for _ in range(10))
        )

        for got in replies:
            assert_too_late(got)
        assert service.dispatcher.stats.in_flight == 0
        assert (await ask(RUN, {"sql": ["SELECT 1"]}, deadline=5)).status == 200
        assert await open_transactions(db) == 0


async def timed_ask(ask: Asker, task: object, deadline: float) -> tuple[Got, float]:
    started = time.monotonic()
    got = await ask(NOTE, {"id": str(task)}, deadline=deadline)
    return got, time.monotonic() - started


async def _nothing_kept(db: AsyncConnection) -> None:
    assert [await count_of(db, f"bus.{name}") for name in ("outbox", "requests")] == [0, 0]
