"""Many callers share a transaction, and none of them notices the others."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager
from functools import partial
from uuid import UUID

import pytest
import pytest_asyncio
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.kit.ids import uuid7
from bus.running import batcher
from bus.running.registry import Registry
from fleetbus.server.config import Settings
from fleetbus.server.service import Service
from tests.bus.asking import (
    CREATE,
    NOTE,
    Asker,
    Got,
    add_tasks,
    asking,
    column_of,
    count_of,
    eventually,
    locked,
    waiting_for_locks,
)
from tests.counting import Counted

Count = Callable[[], AbstractContextManager[Counted]]

PER_COMMAND = 2
"""Statements of a command with an event: clock, key and locked row; update, outbox and key."""


async def note_all(ask: Asker, tasks: list[UUID], **body: object) -> list[Got]:
    return list(await asyncio.gather(*(ask(NOTE, {"id": str(t)} | body) for t in tasks)))


async def none_of(db: AsyncConnection, count: TextClause) -> bool:
    return bool((await db.execute(count)).scalar_one() == 0)


class TestGathering:
    async def test_alone_a_command_runs_at_once(
        self, ask: Asker, db: AsyncConnection, statements: Count
    ) -> None:
        [task] = await add_tasks(db)

        with statements() as counted:
            await ask(NOTE, {"id": str(task)})

        assert counted.total == PER_COMMAND

    async def test_many_use_few_transactions(
        self, ask: Asker, db: AsyncConnection, statements: Count
    ) -> None:
        tasks = await add_tasks(db, 64)

        with statements() as counted:
            replies = await note_all(ask, tasks)

        assert {got.status for got in replies} == {200}
        assert counted.total <= PER_COMMAND * 10

    async def test_reads_by_id_gather_too(
        self, ask: Asker, db: AsyncConnection, statements: Count
    ) -> None:
        tasks = [*await add_tasks(db, 63), uuid7()]

        with statements() as counted:
            replies = await asyncio.gather(*(ask("db.tasks.get", {"id": str(t)}) for t in tasks))

        assert [got.body["id"] for got in replies] == [str(task) for task in tasks]
        assert [got.status for got in replies] == [200] * 63 + [404]
        assert counted.total <= 10

    async def test_no_more_than_the_limit_share_one(
        self, settings: Settings, registry: Registry, db: AsyncConnection
    ) -> None:
        tasks = await add_tasks(db, 40)
        service = Service(settings.model_copy(update={"batch_limit": 5}), registry)
        await service.start()
        try:
            async with asking(settings.nats_url) as ask:
                await note_all(ask, tasks)
        finally:
            await service.stop()

        biggest = "SELECT max(n) FROM (SELECT count(*) AS n FROM bus.outbox GROUP BY xid) AS b"
        assert (await db.execute(text(biggest))).scalar_one() <= 5

    async def test_no_table_is_scanned_that_was_empty_at_first(
        self, settings: Settings, registry: Registry, db: AsyncConnection
    ) -> None:
        """Statements are planned once, while there is nothing that an index could help with."""
        await db.execute(text("VACUUM (ANALYZE) bus.requests"))
        tasks = await add_tasks(db, 40)
        service = Service(settings, registry)
        await service.start()
        try:
            async with asking(settings.nats_url) as ask:
                for task in tasks:
                    got = await ask(NOTE, {"id": str(task)}, key=str(task))
                    assert got.status == 200
        finally:
            await service.stop()

        # A session counts for everyone when it ends, at the latest.
        others = text("SELECT count(*)-1 FROM pg_stat_activity WHERE datname = current_database()")
        await eventually(partial(none_of, db, others))
        scans = "SELECT seq_scan, idx_scan FROM pg_stat_user_tables WHERE relname = 'requests'"
        scanned, looked_up = (await db.execute(text(scans))).one()
        assert looked_up >= 40
        assert scanned == 0


@pytest_asyncio.fixture
async def held_commits(db: AsyncConnection) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Commits that change a task called "held" wait until what this gives is called."""
    for statement in (
        (
            "CREATE FUNCTION held() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS "
            "$$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$"
        ),
        (
            "CREATE CONSTRAINT TRIGGER held AFTER UPDATE ON planning.tasks "
            "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.name = 'held') "
            "EXECUTE FUNCTION held()"
        ),
        "SELECT pg_advisory_lock(1)",
    ):
        await db.execute(text(statement))

    async def let_go() -> None:
        await db.execute(text("SELECT pg_advisory_unlock_all()"))

    yield let_go
    await let_go()


class TestWhileOneCommits:
    async def test_the_next_one_works(
        self,
        ask: Asker,
        db: AsyncConnection,
        held_commits: Callable[[], Awaitable[None]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Not because the first took long: nobody here has lost patience."""
        monkeypatch.setattr(batcher, "PATIENCE", 3600)
        [held], free = await add_tasks(db, name="held"), await add_tasks(db, 5)

        late = asyncio.create_task(ask(NOTE, {"id": str(held)}, deadline=30))
        await eventually(lambda: waiting_for_locks(db))
        replies = await note_all(ask, free)
        assert not late.done()
        await held_commits()

        assert {got.status for got in [*replies, await late]} == {200}

    async def test_who_wants_the_same_entity_waits(
        self, ask: Asker, db: AsyncConnection, held_commits: Callable[[], Awaitable[None]]
    ) -> None:
        [held], [free] = await add_tasks(db, name="held"), await add_tasks(db)

        late = [asyncio.create_task(ask(NOTE, {"id": str(held), "note": n})) for n in "ab"]
        await eventually(lambda: waiting_for_locks(db))
        assert (await ask(NOTE, {"id": str(free)})).status == 200
        assert await waiting_for_locks(db) == 1
        await held_commits()

        assert [(await one).body["version"] for one in late] == [2, 3]
        assert await column_of(db, "summary", held) == "ab"

    async def test_no_more_run_than_are_allowed(
        self,
        settings: Settings,
        registry: Registry,
        db: AsyncConnection,
        held_commits: Callable[[], Awaitable[None]],
    ) -> None:
        [held], [other] = await add_tasks(db, name="held"), await add_tasks(db)
        service = Service(settings.model_copy(update={"concurrent_batches": 1}), registry)
        await service.start()
        try:
            async with asking(settings.nats_url) as ask:
                late = [asyncio.create_task(ask(NOTE, {"id": str(held)}))]
                await eventually(lambda: waiting_for_locks(db))
                late.append(asyncio.create_task(ask(NOTE, {"id": str(other)})))
                await eventually(lambda: service.dispatcher.stats.in_flight == 2)
                batches = service.dispatcher.stats.operations[NOTE].batches
                assert batches.total() == 1
                await held_commits()
                assert {(await one).status for one in late} == {200}
        finally:
            await service.stop()


class TestOnOneEntity:
    async def test_commands_keep_their_order(self, ask: Asker, db: AsyncConnection) -> None:
        [task] = await add_tasks(db)
        notes = [chr(ord("a") + n) for n in range(26)]

        replies = await asyncio.gather(*(ask(NOTE, {"id": str(task), "note": n}) for n in notes))

        assert await column_of(db, "summary", task) == "".join(notes)
        assert [got.body["version"] for got in replies] == list(range(2, 28))

    async def test_at_most_one_is_in_a_transaction(self, ask: Asker, db: AsyncConnection) -> None:
        tasks = await add_tasks(db, 4)

        await note_all(ask, tasks * 10)

        doubles = "SELECT count(*) FROM bus.outbox GROUP BY xid, entity_id HAVING count(*) > 1"
        assert (await db.execute(text(doubles))).all() == []
        assert await count_of(db, "bus.outbox") == 40

    async def test_positions_follow_the_versions(self, ask: Asker, db: AsyncConnection) -> None:
        tasks = await add_tasks(db, 4)

        await note_all(ask, tasks * 10)

        query = "SELECT entity_id, data->'task'->>'version' FROM bus.outbox ORDER BY position"
        rows = (await db.execute(text(query))).all()
        for task in tasks:
            versions = [int(version) for entity, version in rows if entity == str(task)]
            assert versions == list(range(2, 12))


class TestBadNeighbours:
    @pytest.mark.parametrize(
        ("how", "status"), [("refuse", 409), ("raise", 500), ("violate", 422), ("huge", 413)]
    )
    async def test_one_that_fails_is_alone_in_it(
        self, ask: Asker, db: AsyncConnection, how: str, status: int
    ) -> None:
        tasks = await add_tasks(db, 30)
        bodies = [{"id": str(task)} for task in tasks]
        bodies[7]["how"] = how

        replies = await asyncio.gather(*(ask(NOTE, body, key=body["id"]) for body in bodies))

        assert [got.status for got in replies] == [200] * 7 + [status] + [200] * 22
        assert await count_of(db, "bus.outbox") == 29
        assert await count_of(db, "bus.requests") == 29
        assert await column_of(db, "version", tasks[7]) == 1

    async def test_of_two_creations_with_one_name_one_succeeds(
        self, ask: Asker, db: AsyncConnection
    ) -> None:
        names = [f"n{n % 10}" for n in range(20)]

        replies = await asyncio.gather(*(ask(CREATE, {"name": name}) for name in names))

        assert sorted(got.status for got in replies) == [200] * 10 + [409] * 10
        assert await count_of(db, "planning.projects") == 10

    async def test_unknown_ids_are_refused_each(self, ask: Asker, db: AsyncConnection) -> None:
        [task] = await add_tasks(db)

        replies = await note_all(ask, [uuid7(), task, uuid7()])

        assert [got.status for got in replies] == [404, 200, 404]


class TestLockedRows:
    async def test_one_does_not_hold_up_the_batch(self, ask: Asker, db: AsyncConnection) -> None:
        stuck, *free = await add_tasks(db, 30)

        async with locked(db, stuck):
            late = asyncio.create_task(ask(NOTE, {"id": str(stuck)}))
            replies = await note_all(ask, free)
            assert not late.done()

        assert {got.status for got in [*replies, await late]} == {200}

    async def test_as_many_as_there_are_batches_do_not_stop_the_operation(
        self, ask: Asker, db: AsyncConnection, service: Service
    ) -> None:
        """Each alone in its batch, so that every batch and every connection might be taken."""
        *stuck, free = await add_tasks(db, 9)
        assert len(stuck) > service.settings.concurrent_batches
        assert len(stuck) > service.settings.pool_write

        async with locked(db, *stuck):
            late = []
            for task in stuck:
                late.append(asyncio.create_task(ask(NOTE, {"id": str(task)})))
                await eventually(lambda: service.dispatcher.stats.in_flight == len(late))
            got = await ask(NOTE, {"id": str(free)}, deadline=5)

            assert got.status == 200
            assert not any(task.done() for task in late)

        assert {(await task).status for task in late} == {200}

    async def test_what_is_free_by_now_does_not_wait_for_what_is_not(
        self, ask: Asker, db: AsyncConnection, service: Service
    ) -> None:
        tasks = await add_tasks(db, 8)

        async with locked(db, *tasks[:-1]):
            late = [asyncio.create_task(ask(NOTE, {"id": str(t)})) for t in tasks[:-1]]
            await eventually(lambda: service.dispatcher.stats.in_flight == len(late))
            assert (await ask(NOTE, {"id": str(tasks[-1])}, deadline=5)).status == 200

        assert {(await task).status for task in late} == {200}

    async def test_the_order_on_the_locked_entity_is_kept(
        self, ask: Asker, db: AsyncConnection, service: Service
    ) -> None:
        [task] = await add_tasks(db)

        async with locked(db, task):
            late = [asyncio.create_task(ask(NOTE, {"id": str(task), "note": n})) for n in "abcdef"]
            await eventually(lambda: service.dispatcher.stats.in_flight == len(late))

        assert {(await other).status for other in late} == {200}
        assert await column_of(db, "summary", task) == "abcdef"
