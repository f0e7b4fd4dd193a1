"""The connection is cut between COMMIT and its answer: who has a key is told the truth."""

import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.running.calls import Answer
from bus.running.registry import Registry
from fleetbus.server.service import Service
from tests.bus.asking import CREATE, NOTE, RUN, Asker, add_tasks, asking, column_of, count_of
from tests.bus.outages import Proxy, serving


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(database_url).running() as proxy:
        yield proxy


@pytest.fixture
async def behind(proxy: Proxy, nats_url: str, registry: Registry) -> AsyncIterator[Service]:
    async with serving(registry, proxy.url, nats_url, relay=False) as service:
        yield service


@pytest.fixture
async def ask(behind: Service) -> AsyncIterator[Asker]:
    async with asking(behind.settings.nats_url) as asker:
        yield asker


def append_sql(task: object) -> dict[str, Any]:
    sql = f"UPDATE planning.tasks SET summary = concat(summary, '.') WHERE id = '{task}'"
    return {"sql": [sql], "task": str(task)}


class TestWithAKey:
    @pytest.mark.parametrize("shape", ["decider", "handler"])
    async def test_the_caller_gets_the_reply_of_the_one_effect(
        self, ask: Asker, proxy: Proxy, db: AsyncConnection, shape: str
    ) -> None:
        [task] = await add_tasks(db)
        subject, body = (NOTE, {"id": str(task)}) if shape == "decider" else (RUN, append_sql(task))
        proxy.arm()

        got = await ask(subject, body, key="k")

        assert proxy.cuts == 1
        assert (got.status, got.replayed, got.position) == (200, False, "1")
        assert await column_of(db, "summary", task) == "."
        assert [await count_of(db, f"bus.{name}") for name in ("outbox", "requests")] == [1, 1]

    async def test_a_creation_is_not_refused_as_its_own_double(
        self, ask: Asker, proxy: Proxy, db: AsyncConnection
    ) -> None:
        proxy.arm()

        got = await ask(CREATE, {"name": "once"}, key="k")

        assert (got.status, proxy.cuts) == (200, 1)
        assert await count_of(db, "planning.projects") == 1

    async def test_again_and_again(self, ask: Asker, proxy: Proxy, db: AsyncConnection) -> None:
        [task] = await add_tasks(db)

        for n in range(20):
            proxy.arm()
            got = await ask(NOTE, {"id": str(task)}, key=f"{n}")
            assert got.status == 200

        assert proxy.cuts == 20
        assert await column_of(db, "summary", task) == "." * 20


class TestWithoutAKey:
    @pytest.mark.parametrize("shape", ["decider", "handler"])
    async def test_the_caller_is_told_that_nobody_knows(
        self, ask: Asker, proxy: Proxy, db: AsyncConnection, shape: str
    ) -> None:
        [task] = await add_tasks(db)
        subject, body = (NOTE, {"id": str(task)}) if shape == "decider" else (RUN, append_sql(task))
        proxy.arm()

        got = await ask(subject, body)

        assert (got.status, got.type) == (503, "unavailable")
        assert "not known" in got.body["detail"]
        assert await column_of(db, "summary", task) == "."


class TestInABatch:
    async def test_no_command_takes_effect_twice(
        self, behind: Service, proxy: Proxy, db: AsyncConnection
    ) -> None:
        """Forty at once share the COMMIT that is cut."""
        tasks = await add_tasks(db, 40)
        bound = behind.registry.operations[NOTE]
        answers: dict[int, Answer] = {}
        proxy.arm()

        for n, task in enumerate(tasks):
            headers = {"Nats-Msg-Id": f"{n}"} if n % 2 else {}
            body = json.dumps({"id": str(task)}).encode()
            behind.dispatcher.accept(bound, body, headers, partial(answers.__setitem__, n))
        await behind.dispatcher.drained()

        statuses = [answers[n].status for n in range(40)]
        assert proxy.cuts == 1
        assert statuses == [503, 200] * 20
        assert {await column_of(db, "summary", task) for task in tasks} == {"."}
        assert await count_of(db, "bus.outbox") == 40
