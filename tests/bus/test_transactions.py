"""Only the bus commits; what Postgres refuses is told in declared words; nothing is left open."""

import asyncio
import logging
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.handling.shape import HANDLER
from bus.kit.ids import uuid7
from fleetbus.server.service import Service
from tests.bus.asking import (
    NOTE,
    READ,
    RUN,
    Asker,
    add_tasks,
    asking,
    column_of,
    count_of,
    eventually,
    open_transactions,
)
from tests.kit.outbox import Outbox


class TestQueries:
    @pytest.mark.parametrize(
        "sql",
        [
            "DELETE FROM planning.tasks",
            "INSERT INTO bus.sweeps (job) VALUES ('x')",
            "SELECT nextval('bus.outbox_position')",
            "SELECT id FROM planning.tasks FOR UPDATE",
            "CREATE TABLE planning.more (id int)",
        ],
    )
    async def test_a_write_is_refused_by_postgres_itself(
        self, ask: Asker, db: AsyncConnection, caplog: pytest.LogCaptureFixture, sql: str
    ) -> None:
        await add_tasks(db)

        with caplog.at_level(logging.ERROR, "fleetbus.bus"):
            got = await ask(READ, {"sql": [sql]})

        assert (got.status, got.type) == (500, "internal_error")
        assert "read-only transaction" in caplog.text
        assert await count_of(db, "planning.tasks") == 1


class TestCommands:
    async def test_state_event_and_reply_are_one_transaction(
        self, ask: Asker, db: AsyncConnection
    ) -> None:
        [task] = await add_tasks(db)

        await ask(NOTE, {"id": str(task)}, key="k")

        writers = """
            SELECT DISTINCT w.xid FROM (
                SELECT xmin::text AS xid FROM planning.tasks UNION ALL
                SELECT xmin::text FROM bus.outbox UNION ALL SELECT xmin::text FROM bus.requests
            ) AS w
        """
        assert len((await db.execute(text(writers))).all()) == 1

    async def test_a_commit_in_a_handler_commits_nothing(
        self, ask: Asker, db: AsyncConnection, service: Service
    ) -> None:
        """It is the bus's connection in autocommit: its transaction is not SQLAlchemy's to end."""
        [task] = await add_tasks(db)
        async with service.database.connection() as connection:
            await connection.commit()
        sql = f"UPDATE planning.tasks SET summary = 'lost' WHERE id = '{task}'"

        assert (await ask(RUN, {"sql": [sql], "then": "raise"})).status == 500

        assert await column_of(db, "summary", task) is None

    async def test_an_error_that_a_handler_swallows_is_no_success(
        self, ask: Asker, service: Service, db: AsyncConnection
    ) -> None:
        """Postgres answers COMMIT of a failed transaction with ROLLBACK, and no error."""
        [task] = await add_tasks(db)
        handling = service.registry.operations[RUN].handling
        sql = f"UPDATE planning.tasks SET summary = 'lost' WHERE id = '{task}'"

        got = await ask(RUN, {"sql": [sql, "SELECT 1/0"], "then": "swallow"})

        assert handling.shape is HANDLER
        assert (got.status, got.type) == (500, "internal_error")
        assert await column_of(db, "summary", task) is None


class TestConflicts:
    async def test_a_deadlock_is_run_again(
        self, ask: Asker, db: AsyncConnection, outbox: Outbox
    ) -> None:
        """Two commands lock two rows crosswise; Postgres ends one of them, which then succeeds."""
        one, other = await add_tasks(db, 2)
        update = "UPDATE planning.tasks SET summary = concat(summary, '.') WHERE id = '{}'"
        pause = "SELECT pg_sleep(0.2)"

        replies = await asyncio.gather(
            ask(RUN, {"sql": [update.format(one), pause, update.format(other)], "task": str(one)}),
            ask(RUN, {"sql": [update.format(other), pause, update.format(one)], "task": str(one)}),
        )

        assert [got.status for got in replies] == [200, 200]
        assert [await column_of(db, "summary", task) for task in (one, other)] == ["..", ".."]
        assert await outbox.count() == 2

    async def test_a_conflict_that_does_not_end_is_503(self, ask: Asker) -> None:
        raise_ = "DO $$ BEGIN RAISE EXCEPTION 'again' USING ERRCODE = '40001'; END $$"

        got = await ask(RUN, {"sql": [raise_]})

        assert (got.status, got.type, got.body["retryable"]) == (503, "unavailable", True)

    async def test_a_conflict_that_ends_is_not_noticed(
        self, ask: Asker, db: AsyncConnection
    ) -> None:
        """A sequence counts the runs, for it does not roll back."""
        await db.execute(text("CREATE SEQUENCE public.runs"))
        twice = (
            "DO $$ BEGIN IF nextval('public.runs') < 3 THEN "
            "RAISE EXCEPTION 'again' USING ERRCODE = '40001'; END IF; END $$"
        )

        got = await ask(RUN, {"sql": [twice, "SELECT last_value FROM public.runs"]})

        assert (got.status, got.body["rows"]) == (200, ["3"])


class TestConnections:
    async def test_failing_requests_leave_none_behind(
        self, ask: Asker, db: AsyncConnection, service: Service
    ) -> None:
        """More of each kind of failure than the pools have connections."""
        [task] = await add_tasks(db)
        failures: list[tuple[str, dict[str, Any]]] = [
            (RUN, {"sql": [], "then": "raise"}),
            (RUN, {"sql": ["SELECT 1/0"]}),
            (RUN, {"sql": [], "then": "refuse"}),
            (READ, {"sql": ["SELECT nonsense"]}),
            (READ, {"sql": [], "then": "refuse"}),
            (NOTE, {"id": str(task), "how": "raise"}),
            (NOTE, {"id": str(task), "how": "violate"}),
            (NOTE, {"id": str(uuid7())}),
        ]

        replies = await asyncio.gather(*(ask(*failure) for failure in failures * 25))

        assert 200 not in {got.status for got in replies}
        assert await open_transactions(db) == 0
        good = await asyncio.gather(
            *(ask(s, {"sql": ["SELECT 1"]}, deadline=5) for s in (READ, RUN) for _ in range(20))
        )
        assert {got.status for got in good} == {200}
        assert await _sessions(db) <= service.settings.pool_write + service.settings.pool_read + 2

    async def test_callers_that_give_up_leave_none_behind(
        self, ask: Asker, db: AsyncConnection, nats_url: str, service: Service
    ) -> None:
        async with asking(nats_url) as impatient:
            for _ in range(20):
                await impatient.send(RUN, {"sql": ["SELECT pg_sleep(5)"]}, deadline=0.2)

        await eventually(lambda: service.dispatcher.stats.in_flight == 0)
        assert (await ask(RUN, {"sql": ["SELECT 1"]}, deadline=5)).status == 200
        await eventually(lambda: _none_open(db))


async def _sessions(db: AsyncConnection) -> int:
    query = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name = 'fleetbus'"
    )
    return int((await db.execute(text(query))).scalar_one())


async def _none_open(db: AsyncConnection) -> bool:
    return await open_transactions(db) == 0
