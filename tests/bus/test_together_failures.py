"""Several commands in one transaction: none of them, if one fails; and what they wait for."""

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.kit.ids import uuid7
from tests.bus.asking import (
    CREATE,
    NOTE,
    RUN,
    Asker,
    add_tasks,
    assert_problem,
    column_of,
    count_of,
    eventually,
    waiting_for_locks,
)
from tests.bus.together import assert_of, execute, kept, note
from tests.kit.outbox import Outbox


class TestFailures:
    @pytest.mark.parametrize("how", ["refuse", "refuse_and_keep", "violate", "huge"])
    async def test_it_is_that_of_the_command_alone(
        self, ask: Asker, db: AsyncConnection, outbox: Outbox, how: str
    ) -> None:
        """Also where a refusal alone would keep something: here nothing is kept."""
        one, other, third = await add_tasks(db, 3)

        got = await execute(ask, note(one), note(other, how=how), note(third), key="k")
        stored = await kept(db)
        version = await column_of(db, "version", other)
        alone = await ask(*note(other, how=how))

        assert_of(got, alone.status, alone.type, 1, NOTE)
        assert got.body == alone.body | {"operation": 1, "subject": NOTE}
        assert (stored, version) == ([0, 0, 0], 1)
        assert [await column_of(db, "version", task) for task in (one, third)] == [1, 1]

    async def test_a_bug_is_named_and_tells_nothing(self, ask: Asker, db: AsyncConnection) -> None:
        [task] = await add_tasks(db)

        got = await execute(ask, note(task), note(task, how="raise"))

        assert_of(got, 500, "internal_error", 1, NOTE)
        assert "secret" not in got.data.decode()
        assert await column_of(db, "version", task) == 1

    async def test_a_handler_and_a_gathered_one(self, ask: Asker, db: AsyncConnection) -> None:
        [task] = await add_tasks(db)
        claim = {"agent_id": str(uuid7()), "initiative_id": str(uuid7()), "incarnation": 3}
        alone = await ask("db.tasks.claim", claim)

        handled = await execute(ask, note(task), (RUN, {"sql": [], "then": "refuse"}))
        gathered = await execute(ask, note(task), ("db.tasks.claim", claim))

        assert_of(handled, 409, "probe_refused", 1, RUN)
        assert alone.status >= 400
        assert_of(gathered, alone.status, alone.type, 1, "db.tasks.claim")
        assert await column_of(db, "version", task) == 1

    async def test_what_must_be_unique(self, ask: Asker, db: AsyncConnection) -> None:
        got = await execute(
            ask, (CREATE, {"name": "a"}), (CREATE, {"name": "a"}), (CREATE, {"name": "b"})
        )

        assert_of(got, 409, "already_exists", 1, CREATE)
        assert (got.body["entity"], got.body["fields"]) == ("project", "name")
        assert await kept(db) == [0, 0, 0]

    async def test_what_only_the_end_shows(self, ask: Asker, db: AsyncConnection) -> None:
        """A rule that Postgres checks at COMMIT is of no command."""
        await db.execute(
            text(
                "CREATE TABLE public.pairs (id int PRIMARY KEY, other int REFERENCES public.pairs "
                "DEFERRABLE INITIALLY DEFERRED)"
            )
        )
        [task] = await add_tasks(db)
        first = (RUN, {"sql": ["INSERT INTO public.pairs VALUES (1, 2)"]})
        second = (RUN, {"sql": ["INSERT INTO public.pairs VALUES (2, 1)"]})

        got = await execute(ask, note(task), first, key="k")

        assert_problem(got, 422, "constraint_violated")
        assert "operation" not in got.body
        assert await kept(db) == [0, 0, 0]
        assert (await execute(ask, first, second)).status == 200

    async def test_a_reaction_that_refuses(self, ask: Asker, db: AsyncConnection) -> None:
        """It is of the one command that declares what it refuses, or of none."""
        plan = str(uuid7())
        await ask("db.initiatives.create", {"id": plan, "name": "a"})
        await ask("db.initiatives.archive", {"id": plan})
        [task] = await add_tasks(db)
        create = "db.tasks.create", {"name": "a", "initiative_id": plan}

        one = await execute(ask, note(task), create)
        two = await execute(ask, create, create)

        assert_of(one, 409, "initiative_closed", 1, "db.tasks.create")
        assert_problem(two, 409, "initiative_closed")
        assert "operation" not in two.body
        assert await count_of(db, "planning.tasks") == 1

    async def test_a_late_result_is_not_said_to_be_kept(
        self, ask: Asker, db: AsyncConnection
    ) -> None:
        [task] = await add_tasks(db, attempt=2)
        late = {"id": str(task), "attempt": 1, "result": {"a": 1}}

        got = await execute(ask, note(task), ("db.tasks.complete", late))
        alone = await ask("db.tasks.complete", late)

        assert_of(got, 409, "stale_attempt", 1, "db.tasks.complete")
        assert (got.body["kept"], alone.body["kept"]) == (False, True)
        assert await column_of(db, "version", task) == 2, "it was kept once, alone"

    async def test_a_reply_that_does_not_fit(self, ask: Asker, db: AsyncConnection) -> None:
        """Each reply would fit, all together do not."""
        [task] = await add_tasks(db)
        large = (RUN, {"sql": ["SELECT repeat('x', 600000)"]})

        got = await execute(ask, note(task), large, large, key="k")

        assert_problem(got, 413, "reply_too_large")
        assert "operation" not in got.body
        assert await kept(db) == [0, 0, 0]
        assert await column_of(db, "version", task) == 1

    async def test_the_deadline_passes(self, ask: Asker, db: AsyncConnection) -> None:
        [task] = await add_tasks(db)

        got = await execute(ask, note(task), (RUN, {"sql": ["SELECT pg_sleep(5)"]}), deadline=0.3)

        assert_problem(got, 504, "deadline_exceeded", retryable=True)
        await eventually(lambda: _at_rest(db))
        assert await column_of(db, "version", task) == 1


class TestLocks:
    async def test_a_deadlock_is_run_again(self, ask: Asker, db: AsyncConnection) -> None:
        """Two transactions change two tasks crosswise; Postgres ends one, which then succeeds."""
        one, other = await add_tasks(db, 2)
        pause = (RUN, {"sql": ["SELECT pg_sleep(0.2)"]})

        replies = await asyncio.gather(
            execute(ask, note(one), pause, note(other)), execute(ask, note(other), pause, note(one))
        )

        assert [got.status for got in replies] == [200, 200]
        assert [await column_of(db, "summary", task) for task in (one, other)] == ["..", ".."]
        assert await count_of(db, "bus.outbox") == 4

    async def test_a_conflict_that_does_not_end_is_503(
        self, ask: Asker, db: AsyncConnection
    ) -> None:
        [task] = await add_tasks(db)
        raise_ = "DO $$ BEGIN RAISE EXCEPTION 'again' USING ERRCODE = '40001'; END $$"

        got = await execute(ask, note(task), (RUN, {"sql": [raise_]}))

        assert_of(got, 503, "unavailable", 1, RUN)
        assert got.body["retryable"]
        assert await column_of(db, "version", task) == 1

    async def test_it_waits_for_a_row_and_sees_what_became_of_it(
        self, ask: Asker, db: AsyncConnection
    ) -> None:
        [task] = await add_tasks(db)
        change = f"UPDATE planning.tasks SET summary = 'a' WHERE id = '{task}'"
        slow = (RUN, {"sql": [change, "SELECT pg_advisory_xact_lock(1)"]})
        await db.execute(text("SELECT pg_advisory_lock(1)"))
        first = asyncio.create_task(execute(ask, slow))
        await eventually(lambda: _wait(db, 1))
        second = asyncio.create_task(execute(ask, note(task), note(task)))
        await eventually(lambda: _wait(db, 2))
        await db.execute(text("SELECT pg_advisory_unlock(1)"))

        assert [got.status for got in await asyncio.gather(first, second)] == [200, 200]
        assert await column_of(db, "summary", task) == "a.."


async def _at_rest(db: AsyncConnection) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query "
    return int((await db.execute(text(query + "LIKE '%pg_sleep(5)'"))).scalar_one()) == 0


async def _wait(db: AsyncConnection, sessions: int) -> bool:
    return await waiting_for_locks(db) == sessions
