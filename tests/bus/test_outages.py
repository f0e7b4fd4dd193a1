"""Postgres goes away, comes back, stands still: callers are told at once, and nobody restarts."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from bus.running.registry import Registry
from fleetbus.embedded.postgres import EmbeddedPostgres
from fleetbus.server.service import Service
from tests.bus.asking import NOTE, READ, RUN, Asker, Got, asking, eventually
from tests.bus.outages import frozen, serving
from tests.servers import migrate

pytestmark = pytest.mark.alone

AT_ONCE = 1.0
TASK = "0199c0de-0000-7000-8000-000000000001"
INSERT = f"INSERT INTO planning.tasks (id, name, status) VALUES ('{TASK}', 'x', 'in_progress')"
REQUESTS: list[tuple[str, dict[str, Any]]] = [
    (NOTE, {"id": TASK}),
    (RUN, {"sql": ["SELECT 1"]}),
    (READ, {"sql": ["SELECT 1"]}),
    ("db.tasks.get", {"id": TASK}),
]


@pytest.fixture
async def own_service(
    own_postgres: EmbeddedPostgres, nats_url: str, registry: Registry
) -> AsyncIterator[Service]:
    await migrate(own_postgres.url)
    async with serving(registry, own_postgres.url, nats_url, relay=False) as service:
        yield service


@pytest.fixture
async def ask(own_service: Service) -> AsyncIterator[Asker]:
    async with asking(own_service.settings.nats_url) as asker:
        assert (await asker(RUN, {"sql": [INSERT]})).status == 200
        yield asker


async def timed(ask: Asker, subject: str, body: Any, **how: Any) -> tuple[Got, float]:
    started = time.monotonic()
    got = await ask(subject, body, **how)
    return got, time.monotonic() - started


async def all_at_once(ask: Asker, **how: Any) -> list[tuple[Got, float]]:
    """Every shape of operation a few times, keyed and not."""
    return await asyncio.gather(
        *(
            timed(ask, subject, body, key=f"{subject}-{n}-{time.monotonic()}" if n else None, **how)
            for subject, body in REQUESTS
            for n in range(4)
        )
    )


def assert_unavailable_at_once(replies: list[tuple[Got, float]]) -> None:
    for got, took in replies:
        assert (got.status, got.type, got.body["retryable"]) == (503, "unavailable", True), got
        assert took < AT_ONCE


async def works(ask: Asker) -> bool:
    replies = [await ask(subject, body) for subject, body in REQUESTS]
    return {got.status for got in replies} == {200}


class TestKilled:
    async def test_requests_in_work_are_told_at_once(
        self, ask: Asker, own_service: Service, own_postgres: EmbeddedPostgres
    ) -> None:
        asked = [
            asyncio.create_task(ask(subject, {"sql": ["SELECT pg_sleep(30)"]}))
            for subject in (RUN, READ) * 8
        ]
        await eventually(lambda: own_service.dispatcher.stats.in_flight == len(asked))
        await eventually(lambda: _at_work(own_postgres, 6))

        await own_postgres.kill()
        started = time.monotonic()
        replies = await asyncio.gather(*asked)

        assert time.monotonic() - started < AT_ONCE
        assert {got.status for got in replies} == {503}

    async def test_later_requests_are_told_at_once_and_succeed_afterwards(
        self, ask: Asker, own_postgres: EmbeddedPostgres, caplog: pytest.LogCaptureFixture
    ) -> None:
        await own_postgres.kill()

        assert_unavailable_at_once(await all_at_once(ask))
        assert_unavailable_at_once(await all_at_once(ask))
        await own_postgres.start()
        await eventually(lambda: works(ask))

        assert "Postgres is unavailable" in caplog.text
        assert "Postgres is available again" in caplog.text

    async def test_twice_in_a_row(self, ask: Asker, own_postgres: EmbeddedPostgres) -> None:
        for _ in range(2):
            await own_postgres.kill()
            assert_unavailable_at_once(await all_at_once(ask))
            await own_postgres.start()
            await eventually(lambda: works(ask))


class TestRestarted:
    async def test_between_requests_nobody_notices(
        self, ask: Asker, own_postgres: EmbeddedPostgres
    ) -> None:
        await all_at_once(ask)

        await own_postgres.stop()
        await own_postgres.start()

        assert {got.status for got, _ in await all_at_once(ask)} == {200}

    async def test_ended_sessions_are_replaced_unseen(
        self, ask: Asker, own_postgres: EmbeddedPostgres
    ) -> None:
        for _ in range(3):
            await all_at_once(ask)
            await _terminate_all(own_postgres)
            assert {got.status for got, _ in await all_at_once(ask)} == {200}

    async def test_a_session_ended_in_the_middle_of_the_work_is_replaced(
        self, ask: Asker, own_service: Service, own_postgres: EmbeddedPostgres
    ) -> None:
        asked = [
            asyncio.create_task(ask(RUN, {"sql": ["SELECT pg_sleep(0.5)"]}, key=f"{n}"))
            for n in range(4)
        ]
        await eventually(lambda: _at_work(own_postgres, 4))

        await _terminate_all(own_postgres)

        assert {(await task).status for task in asked} == {200}


class TestFrozen:
    async def test_deadlines_are_kept(self, ask: Asker, own_postgres: EmbeddedPostgres) -> None:
        await all_at_once(ask)

        with frozen(own_postgres.pid):
            for _ in range(2):
                for got, took in await all_at_once(ask, deadline=0.5):
                    assert got.status in {503, 504}, got
                    assert took < 0.5 + AT_ONCE

        await eventually(lambda: works(ask))

    async def test_what_was_answered_with_504_is_not_stored_later(
        self, ask: Asker, own_postgres: EmbeddedPostgres
    ) -> None:
        with frozen(own_postgres.pid):
            replies = [got for got, _ in await all_at_once(ask, deadline=0.3)]
        await eventually(lambda: works(ask))
        await eventually(lambda: _at_work(own_postgres, 0))

        assert {got.status for got in replies} == {504}
        version = (await ask("db.tasks.get", {"id": TASK})).body["version"]
        summary = (await ask("db.tasks.get", {"id": TASK})).body["summary"]
        assert version == 1 + len(summary)
        kept = await ask(READ, {"sql": ["SELECT key FROM bus.requests"]})
        assert kept.body["rows"] == []

    async def test_without_a_deadline_the_limit_of_the_service_is_kept(
        self, own_postgres: EmbeddedPostgres, nats_url: str, registry: Registry
    ) -> None:
        await migrate(own_postgres.url)
        async with (
            serving(registry, own_postgres.url, nats_url, relay=False, request_timeout=0.5),
            asking(nats_url) as ask,
        ):
            assert (await ask(RUN, {"sql": [INSERT]})).status == 200
            with frozen(own_postgres.pid):
                for got, took in await all_at_once(ask):
                    assert got.status in {503, 504}
                    assert took < 0.5 + AT_ONCE
            await eventually(lambda: works(ask))


async def _terminate_all(postgres: EmbeddedPostgres) -> None:
    await _fetch(
        postgres,
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE application_name = 'fleetbus'",
    )


async def _at_work(postgres: EmbeddedPostgres, count: int) -> bool:
    query = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE application_name = 'fleetbus' AND state = 'active'"
    )
    return bool(await _fetch(postgres, query) == count)


async def _fetch(postgres: EmbeddedPostgres, query: str) -> Any:
    connection = await asyncpg.connect(postgres.url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()
