"""What is the server's and no bug: told as it is, tried again by whoever likes, logged once."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.running.registry import Registry
from fleetbus.embedded._cluster import postgres_install
from fleetbus.embedded.postgres import EmbeddedPostgres
from fleetbus.server.service import Service
from tests.bus.asking import (
    NOTE,
    READ,
    RUN,
    Asker,
    Got,
    add_tasks,
    asking,
    assert_problem,
    eventually,
)
from tests.bus.outages import serving
from tests.servers import PristineCluster, migrate

pytestmark = pytest.mark.own_service  # what befalls the database befalls whoever is on it
SERVERS_CLASSES = ("08", "28", "3D", "3F", "53", "57", "58", "F0", "XX")
SERVERS_STATES = {
    *("25006", "25P03", "25P04", "26000", "40003", "42501", "42P01", "42P05"),
    *("55000", "55006", "55P03"),
}
OTHERS_IN_THE_WAY = {"40000", "40001", "40P01", "72000"}
RAISE = "DO $$ BEGIN RAISE EXCEPTION 'no secret' USING ERRCODE = '{}'; END $$"

REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("db.tasks.create", {"name": "made"}),
    ("db.tasks.claim", {"agent_id": "somebody"}),
    (RUN, {"sql": ["UPDATE planning.tasks SET name = 'changed'"]}),
]
QUERIES: list[tuple[str, dict[str, Any]]] = [
    ("db.tasks.list", {"limit": 1}),
    ("db.tasks.queue", {}),
    (READ, {"sql": ["SELECT 1"]}),
]


def errors_of_postgres() -> Iterator[str]:
    """Every SQLSTATE of an error, as Postgres itself lists them."""
    for line in (postgres_install() / "share" / "errcodes.txt").read_text().splitlines():
        words = line.split()
        if len(words) > 2 and words[1] == "E":
            yield words[0]


def is_the_servers(state: str) -> bool:
    return state[:2] in SERVERS_CLASSES or state in SERVERS_STATES


async def ask_all(ask: Asker, requests: list[tuple[str, dict[str, Any]]]) -> list[Got]:
    return await asyncio.gather(*(ask(subject, body) for subject, body in requests))


async def all_answer(ask: Asker) -> bool:
    return {got.status for got in await ask_all(ask, REQUESTS + QUERIES)} == {200}


async def end_sessions(db: AsyncConnection) -> None:
    await db.execute(
        text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type ="
            " 'client backend' AND datname = current_database() AND pid <> pg_backend_pid()"
        )
    )


async def set_for_database(db: AsyncConnection, what: str) -> None:
    name = (await db.execute(text("SELECT current_database()"))).scalar_one()
    await db.execute(text(f"ALTER DATABASE {name} {what}"))
    await end_sessions(db)


@asynccontextmanager
async def read_only(db: AsyncConnection) -> AsyncIterator[None]:
    await set_for_database(db, "SET default_transaction_read_only = on")
    try:
        yield
    finally:
        await set_for_database(db, "RESET default_transaction_read_only")


def lines(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    return [line for line in caplog.messages if words in line]


def tracebacks(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.exc_info]


class TestEveryState:
    @pytest.mark.parametrize("subject", [RUN, READ])
    async def test_is_told_as_what_it_is(self, ask: Asker, subject: str) -> None:
        states = list(errors_of_postgres())
        assert len(states) > 200

        wrong = []
        for state in states:
            got = await ask(subject, {"sql": [RAISE.format(state)]})
            if state == "25006" and subject == READ:
                expected = (500, "internal_error", False)
            elif is_the_servers(state) or state in OTHERS_IN_THE_WAY:
                expected = (503, "unavailable", True)
            elif state[:2] == "23" and subject == RUN:
                expected = (422, "constraint_violated", False)
            elif state == "54000":
                # What else is too large for an index.
                expected = (400, "invalid_request", False)
            else:
                expected = (500, "internal_error", False)
            if (got.status, got.type, got.body["retryable"]) != expected:
                wrong.append((state, got.body))
            assert b"secret" not in got.data
        assert wrong == []

    async def test_the_detail_says_which(self, ask: Asker) -> None:
        for state, words in (
            ("53100", "disk"),
            ("53200", "memory"),
            ("58030", "files"),
            ("57000", "operator"),
            ("25006", "read-only"),
        ):
            got = await ask(RUN, {"sql": [RAISE.format(state)]})
            assert_problem(got, 503, "unavailable", retryable=True)
            assert words in got.body["detail"]
            assert state in got.body["detail"]


class TestFull:
    async def test_however_many_meet_it_it_is_one_line(
        self, ask: Asker, db: AsyncConnection, service: Service, caplog: pytest.LogCaptureFixture
    ) -> None:
        tasks = await add_tasks(db, 10)
        await db.execute(
            text(
                "CREATE FUNCTION full_() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = '53100'; END $$"
            )
        )
        await db.execute(
            text(
                "CREATE TRIGGER full_ BEFORE INSERT OR UPDATE ON planning.tasks "
                "EXECUTE FUNCTION full_()"
            )
        )

        replies = await asyncio.gather(
            *(ask(NOTE, {"id": str(task)}) for task in tasks),
            *(ask("db.tasks.create", {"name": "x"}) for _ in tasks),
        )

        for got in replies:
            assert_problem(got, 503, "unavailable", retryable=True)
        assert {got.status for got in await ask_all(ask, QUERIES)} == {200}
        assert len(lines(caplog, "Postgres refuses work")) == 1
        assert tracebacks(caplog) == []
        assert "disk" in (service.database.trouble or "")

        await db.execute(text("DROP TRIGGER full_ ON planning.tasks"))
        assert await all_answer(ask)
        await eventually(lambda: service.database.trouble is None)
        assert len(lines(caplog, "Postgres works again")) == 1

    async def test_what_one_statement_met_is_not_what_everybody_meets(
        self, ask: Asker, service: Service
    ) -> None:
        for state in ("53400", "55006", "57000", "XX000"):
            got = await ask(RUN, {"sql": [RAISE.format(state)]})
            assert_problem(got, 503, "unavailable", retryable=True)
        assert service.database.trouble is None

    async def test_a_limit_of_the_server(
        self, data_dir: Path, pristine_cluster: PristineCluster, nats_url: str, registry: Registry
    ) -> None:
        pristine_cluster.copy_to(data_dir)
        limits = {"temp_file_limit": "64kB", "work_mem": "64kB"}
        server = EmbeddedPostgres(data_dir, durable=False, settings=limits)
        await server.start()
        try:
            await migrate(server.url)
            async with serving(registry, server.url, nats_url) as _, asking(nats_url) as ask:
                spilling = (
                    "SELECT count(*) FROM (SELECT n FROM generate_series(1, 100000) n "
                    "ORDER BY n DESC OFFSET 0) x"
                )
                for subject in (RUN, READ):
                    got = await ask(subject, {"sql": [spilling]})
                    assert_problem(got, 503, "unavailable", retryable=True)
                    assert "53400" in got.body["detail"]
        finally:
            await server.stop("immediate")


class TestReadOnly:
    async def test_commands_are_told_and_queries_answered(
        self, ask: Asker, db: AsyncConnection, service: Service, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert await all_answer(ask)

        async with read_only(db):
            for _ in range(3):
                for got in await ask_all(ask, REQUESTS * 4):
                    assert_problem(got, 503, "unavailable", retryable=True)
                    assert "read-only" in got.body["detail"]
                assert {got.status for got in await ask_all(ask, QUERIES)} == {200}
            assert "read-only" in (service.database.trouble or "")
        await eventually(lambda: all_answer(ask))

        await eventually(lambda: service.database.trouble is None)
        assert len(lines(caplog, "Postgres refuses work")) == 1
        assert len(lines(caplog, "Postgres works again")) == 1
        assert tracebacks(caplog) == []

    async def test_relay_and_sweeper_say_it_once(
        self,
        database_url: str,
        nats_url: str,
        registry: Registry,
        db: AsyncConnection,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        async with (
            serving(registry, database_url, nats_url, sweeper=True, sweep_interval=0.05) as service,
            asking(nats_url) as ask,
        ):
            assert service.relay is not None
            relay = service.relay.metrics
            await eventually(lambda: relay.active)
            async with read_only(db):
                await eventually(lambda: service.database.troubles.read_only)
                met = relay.errors
                await eventually(lambda: relay.errors >= met + 2)
            await eventually(lambda: all_answer(ask))
            await eventually(lambda: relay.active)

        assert tracebacks(caplog) == []
        assert [r for r in caplog.records if r.name == "fleetbus.sweeper"] == []
        assert len(lines(caplog, "Postgres refuses work")) == 1
        assert len(lines(caplog, "the relay is interrupted")) <= 2


class TestClosed:
    async def test_a_database_that_lets_nobody_in(self, ask: Asker, db: AsyncConnection) -> None:
        assert await all_answer(ask)

        await set_for_database(db, "CONNECTION LIMIT 0")
        for got in await ask_all(ask, (REQUESTS + QUERIES) * 2):
            assert_problem(got, 503, "unavailable", retryable=True)
            assert "no more connections" in got.body["detail"]

        await set_for_database(db, "CONNECTION LIMIT -1")
        await eventually(lambda: all_answer(ask))


class TestStandby:
    async def test_a_primary_that_became_one_is_not_used(
        self, own_postgres: EmbeddedPostgres, nats_url: str, registry: Registry
    ) -> None:
        signal = own_postgres.data_dir / "postgres" / "standby.signal"
        await migrate(own_postgres.url)
        async with (
            serving(registry, own_postgres.url, nats_url) as service,
            asking(nats_url) as ask,
        ):
            assert await all_answer(ask)

            await own_postgres.stop()
            signal.touch()
            await own_postgres.start()
            await eventually(lambda: _told_of_the_standby(ask))
            assert "standby" in (service.database.trouble or "")
            for got in await ask_all(ask, REQUESTS + QUERIES):
                assert_problem(got, 503, "unavailable", retryable=True)

            await own_postgres.stop()
            signal.unlink()
            await own_postgres.start()
            await eventually(lambda: all_answer(ask))


async def _told_of_the_standby(ask: Asker) -> bool:
    """The first ones may be told of what they met; none is told of a bug."""
    replies = await ask_all(ask, REQUESTS)
    assert {got.status for got in replies} == {503}
    return all("standby" in got.body["detail"] for got in replies)


class TestChangedByAnOperator:
    async def test_a_right_that_was_taken(self, ask: Asker, db: AsyncConnection) -> None:
        await db.execute(text("REVOKE ALL ON planning.tasks FROM CURRENT_USER"))
        for got in await ask_all(ask, REQUESTS + QUERIES[:2]):
            assert_problem(got, 503, "unavailable", retryable=True)
            assert "right" in got.body["detail"]

        await db.execute(text("GRANT ALL ON planning.tasks TO CURRENT_USER"))
        assert await all_answer(ask)

    async def test_a_schema_that_is_gone(self, ask: Asker, db: AsyncConnection) -> None:
        await db.execute(text("ALTER SCHEMA planning RENAME TO elsewhere"))
        for got in await ask_all(ask, REQUESTS + QUERIES[:2]):
            assert_problem(got, 503, "unavailable", retryable=True)
            assert "schema" in got.body["detail"]

        await db.execute(text("ALTER SCHEMA elsewhere RENAME TO planning"))
        assert await all_answer(ask)

    async def test_a_column_that_changes_its_type_meanwhile_is_not_noticed(
        self, ask: Asker, db: AsyncConnection
    ) -> None:
        [task] = await add_tasks(db)
        asked = [("db.tasks.get", {"id": str(task)}), ("db.tasks.update", {"id": str(task)})]
        for type_ in ("varchar(500)", "text"):
            assert {got.status for got in await ask_all(ask, asked * 8)} == {200}
            await db.execute(text(f"ALTER TABLE planning.tasks ALTER COLUMN name TYPE {type_}"))
            assert {got.status for got in await ask_all(ask, asked * 8)} == {200}
