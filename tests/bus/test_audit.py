"""What no event tells is put on record with the transaction, or not at all."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.operation import Command
from bus.running.inside import Inside
from bus.running.registry import Registry
from bus.running.transaction import begin
from bus.storage import partitions
from bus.storage.driver import Compiled
from bus.storage.partitions import PARTITIONED
from fleetbus import domain
from fleetbus.server.service import Service
from fleetbus.server.sweeper.sweeper import sweeps
from tests.bus.asking import RUN, Asker, Got, add_tasks, assert_problem, count_of
from tests.bus.audited import WATCH, WATCH_ALL, WATCH_SECRET, with_audited
from tests.bus.probes import with_probes
from tests.bus.together import assert_of, execute
from tests.counting import Counted

Statements = Callable[[], AbstractContextManager[Counted]]


@pytest.fixture(scope="module")
def registry() -> Registry:
    return with_audited(with_probes(domain.registry()))


async def records(db: AsyncConnection) -> list[Any]:
    return list((await db.execute(text("SELECT * FROM bus.audit ORDER BY at, id"))).all())


async def notes(db: AsyncConnection) -> list[str]:
    return sorted(row.detail["note"] for row in await records(db))


class TestKept:
    async def test_all_of_it(self, ask: Asker, db: AsyncConnection) -> None:
        [task] = await add_tasks(db)

        assert (await ask(WATCH, {"note": "ü\"'", "task": str(task)})).status == 200

        [row] = await records(db)
        about = (row.actor, row.kind, row.entity, row.entity_id, str(row.ip))
        assert about == (None, "probe.watched", "task", str(task), "2001:db8::1")
        assert row.detail == {"note": "ü\"'", "count": 3}
        assert datetime.now(UTC) - row.at < timedelta(minutes=5)

    async def test_it_is_one_transaction(self, ask: Asker, db: AsyncConnection) -> None:
        [task] = await add_tasks(db)

        await ask(WATCH, {"task": str(task)}, key="k")

        writers = """
            SELECT xmin::text FROM bus.audit UNION
            SELECT xmin::text FROM bus.outbox UNION SELECT xmin::text FROM bus.requests
        """
        assert len((await db.execute(text(writers))).all()) == 1

    async def test_it_takes_no_further_statement(
        self, ask: Asker, db: AsyncConnection, statements: Statements
    ) -> None:
        [task] = await add_tasks(db)
        totals = []
        for silent in (False, True):
            with statements() as counted:
                body = {"task": str(task), "silent": silent}
                assert (await ask(WATCH, body, key=f"{silent}")).status == 200
            totals.append(counted.total)

        assert totals[0] == totals[1]
        assert await count_of(db, "bus.audit") == 1

    async def test_of_a_repeat_there_is_one(self, ask: Asker, db: AsyncConnection) -> None:
        for _ in range(2):
            await ask(WATCH, key="k")

        assert await count_of(db, "bus.audit") == 1

    async def test_who_calls_inside_is_named(self, service: Service, db: AsyncConnection) -> None:
        inside = Inside(service.dispatcher, "detector", attempt_timeout=5)
        command = service.registry.operations[WATCH].operation.model_validate({})
        assert isinstance(command, Command)

        await inside.call(command, key="k", timeout=5)

        assert [row.actor for row in await records(db)] == ["detector"]

    async def test_with_a_reaction_that_is_needed(
        self, service: Service, db: AsyncConnection
    ) -> None:
        """The first attempt to write finds that there is something to do, and writes none."""
        finds = Compiled("SELECT 1 FROM unnest(CAST($1 AS text[])) AS id", ("ids",))
        row = b'{"id":"0199c0de-0000-7000-8000-000000000001","kind":"a.b","detail":{}}'
        async with begin(service.database, left=lambda: 10.0) as tx:
            tx.audited = [row]
            first = await tx.append("", [], [], unless={finds: ["one"]})
            second = await tx.append("", [], [])
            third = await tx.append("", [], [])
            await tx.commit()

        assert (first.found, second.found, third.found) == (True, False, False)
        assert await count_of(db, "bus.audit") == 1


class TestRefused:
    @pytest.mark.parametrize("subject", [WATCH, WATCH_ALL])
    async def test_what_keeps_nothing_leaves_nothing(
        self, ask: Asker, db: AsyncConnection, subject: str
    ) -> None:
        assert_problem(await ask(subject, {"then": "refuse"}), 409, "probe_refused")

        assert await records(db) == []

    @pytest.mark.parametrize("subject", [WATCH, WATCH_ALL])
    async def test_what_keeps_something_is_on_record(
        self, ask: Asker, db: AsyncConnection, subject: str
    ) -> None:
        for _ in range(2):
            got = await ask(subject, {"then": "keep", "note": "kept"}, key="k")
            assert_problem(got, 409, "probe_refused")

        assert await notes(db) == ["kept"]

    async def test_each_of_many_has_its_own(self, ask: Asker, db: AsyncConnection) -> None:
        ends = ["answer", "refuse", "keep"]

        got: list[Got] = await asyncio.gather(
            *(ask(WATCH_ALL, {"note": f"{n:02}", "then": ends[n % 3]}) for n in range(30))
        )

        assert [one.status for one in got] == [200, 409, 409] * 10
        assert await notes(db) == [f"{n:02}" for n in range(30) if n % 3 != 1]

    @pytest.mark.parametrize("subject", [WATCH, WATCH_ALL])
    async def test_a_dry_run_leaves_nothing(
        self, ask: Asker, db: AsyncConnection, subject: str
    ) -> None:
        assert (await ask(subject, dry_run=True)).status == 200

        assert await records(db) == []

    @pytest.mark.parametrize("then", ["bulk", "misname", "misplace"])
    async def test_a_bug(self, ask: Asker, db: AsyncConnection, then: str) -> None:
        assert_problem(await ask(WATCH, {"then": then}), 500, "internal_error")

        assert await records(db) == []
        assert await count_of(db, "bus.sweeps") == 0


class TestTogether:
    async def test_all_of_them(self, ask: Asker, db: AsyncConnection) -> None:
        steps = [(WATCH, {"note": "a"}), (WATCH_ALL, {"note": "b"}), (WATCH, {"note": "c"})]

        assert (await execute(ask, *steps)).status == 200

        assert await notes(db) == ["a", "b", "c"]

    @pytest.mark.parametrize("then", ["refuse", "keep"])
    @pytest.mark.parametrize("subject", [WATCH, WATCH_ALL])
    async def test_or_none(self, ask: Asker, db: AsyncConnection, subject: str, then: str) -> None:
        got = await execute(ask, (WATCH, {"note": "a"}), (subject, {"then": then}))

        assert_of(got, 409, "probe_refused", 1, subject)
        assert await records(db) == []


class TestSecrets:
    @pytest.mark.parametrize(
        ("secret", "note"),
        [
            ({"token": "planted-1"}, "planted-1"),
            ({"token": "planted-1"}, "it was planted-1, was it not"),
            ({"token": "x"}, "made-of-the-reply"),
        ],
    )
    async def test_one_on_record_fails_the_command(
        self, ask: Asker, db: AsyncConnection, secret: dict[str, str], note: str
    ) -> None:
        got = await ask(WATCH_SECRET, {"secret": secret, "note": note})

        assert_problem(got, 500, "internal_error")
        assert await records(db) == []

    async def test_what_is_no_secret_is_on_record(self, ask: Asker, db: AsyncConnection) -> None:
        secret = {"refresh_token": "planted-1", "kind": "oauth"}
        body = {"secret": secret, "note": "oauth: refresh_token planted"}

        assert (await ask(WATCH_SECRET, body)).status == 200

        assert await notes(db) == ["oauth: refresh_token planted"]


class TestRetention:
    async def test_it_goes_by_days(self, service: Service, db: AsyncConnection) -> None:
        old = "INSERT INTO bus.audit (at, id, kind) VALUES (:at, gen_random_uuid(), 'a.b')"
        now = datetime.now(UTC)
        for days in (100, 80, 0):
            await db.execute(text(old), {"at": now - timedelta(days=days)})
        table = PARTITIONED["audit"]
        async with service.database.dedicated.connect() as session:
            made = await partitions.keep(session, table, retention=timedelta(days=90))
            again = await partitions.keep(session, table, retention=timedelta(days=90))

        assert (made, again) == (partitions.AHEAD, 0), "today's are in the default one"
        assert await count_of(db, "bus.audit") == 2
        tomorrow = now + timedelta(days=1)
        await db.execute(text(old), {"at": tomorrow})
        assert await count_of(db, f"bus.{table.of(tomorrow.date())}") == 1

    async def test_the_sweeper_keeps_it(self, service: Service) -> None:
        names = [one.name for one in sweeps(service.registry, service.settings)]

        assert names.count("keep_audit") == 1
        assert service.settings.audit_retention_days == 90


async def test_a_command_without_it_touches_no_record(ask: Asker, statements: Statements) -> None:
    with statements() as counted:
        assert (await ask(RUN, {"sql": []}, key="k")).status == 200

    assert not [one for one in counted.texts if "bus.audit" in one]
