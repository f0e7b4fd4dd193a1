"""What reads much has connections, limits and a queue of its own; nobody else waits for it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.running.registry import Registry
from fleetbus.server.config import Settings
from fleetbus.server.service import Service
from tests.bus.asking import READ, Asker, Got, add_tasks, assert_problem, eventually

Request = tuple[str, dict[str, Any]]

EXPENSIVE: list[Request] = [
    ("db.tasks.list", {"search": "x"}),
    ("db.tasks.list", {"count": "exact"}),
    ("db.tasks.list", {"search": "x", "status": "pending", "order": "-created_at", "limit": 1}),
    ("db.projects.list", {"search": "x"}),
    ("db.initiatives.list", {"search": "x"}),
    ("db.agents.list", {"count": "exact"}),
    ("db.tasks.queue", {}),
    ("db.health.dashboard", {}),
    ("db.health.status", {"window": {"last": 3}}),
    ("db.model_calls.usage", {}),
]
CHEAP: list[Request] = [
    ("db.tasks.list", {"limit": 3}),
    ("db.tasks.list", {"limit": 3, "status": "pending", "count": "none"}),
    ("db.agents.list", {}),
    ("db.projects.list", {"limit": 500}),
]

IN_FLIGHT = 6
"""Expensive queries that the service of these tests has in work or waiting."""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    given = {"pool_expensive": 1, "max_expensive_in_flight": IN_FLIGHT, "expensive_timeout": 0.6}
    return settings.model_copy(update=given)


@asynccontextmanager
async def expensive_held(service: Service) -> AsyncIterator[None]:
    """Nobody gets a connection for what is expensive inside the block."""
    async with service.database.connection(read_only=True, expensive=True):
        yield


async def all_of(ask: Asker, requests: list[Request]) -> list[Got]:
    return await asyncio.gather(*(ask(subject, body, within=5) for subject, body in requests))


async def waits(service: Service, count: int) -> bool:
    return service.database.use()["expensive"].waiting == count


async def test_all_of_it_is_answered(ask: Asker) -> None:
    for subject, body in EXPENSIVE + CHEAP:
        assert (await ask(subject, body)).status == 200


async def test_gets_and_pages_do_not_wait_for_it(
    ask: Asker, service: Service, db: AsyncConnection
) -> None:
    tasks = await add_tasks(db, 5)
    cheap = CHEAP + [("db.tasks.get", {"id": str(task)}) for task in tasks]
    for request in EXPENSIVE:
        async with expensive_held(service):
            slow = [asyncio.create_task(all_of(ask, [request])) for _ in range(3)]
            await eventually(partial(waits, service, 3))
            assert {got.status for got in await all_of(ask, cheap)} == {200}
            assert not any(one.done() for one in slow)
        assert {got.status for one in slow for got in await one} == {200}


async def test_beyond_its_own_limit_it_is_shed_and_nothing_else_is(
    ask: Asker, service: Service
) -> None:
    async with expensive_held(service):
        slow = [asyncio.create_task(all_of(ask, EXPENSIVE[:1])) for _ in range(IN_FLIGHT)]
        await eventually(partial(waits, service, IN_FLIGHT))

        for got in await all_of(ask, EXPENSIVE):
            assert_problem(got, 429, "overloaded", retryable=True)
            assert got.body["retry_after_ms"] > 0
        assert {got.status for got in await all_of(ask, CHEAP)} == {200}
    assert {got.status for one in slow for got in await one} == {200}
    assert {got.status for got in await all_of(ask, EXPENSIVE[:IN_FLIGHT])} == {200}


async def test_what_takes_too_long_is_told_what_to_do(
    ask: Asker, db: AsyncConnection, service: Service
) -> None:
    await db.execute(text("BEGIN"))
    await db.execute(text("LOCK TABLE planning.tasks"))

    got = await ask(*EXPENSIVE[0])
    await db.execute(text("ROLLBACK"))

    assert_problem(got, 422, "too_expensive")
    assert "narrow" in got.body["detail"]
    assert got.body["seconds"] == service.settings.expensive_timeout
    assert (await ask(*EXPENSIVE[0])).status == 200


async def test_a_query_that_was_to_be_cheap_and_is_not_goes_on_among_them(
    ask: Asker, service: Service, settings: Settings
) -> None:
    async with expensive_held(service):
        slow = [
            asyncio.create_task(ask(READ, {"sql": ["SELECT pg_sleep(1.3)"]}))
            for _ in range(settings.pool_read)
        ]
        await eventually(partial(waits, service, len(slow)))
        assert {got.status for got in await all_of(ask, CHEAP)} == {200}
    for task in slow:
        assert_problem(await task, 422, "too_expensive")


async def test_one_processor_is_all_that_it_gets(service: Service) -> None:
    query = text("SELECT current_setting('max_parallel_workers_per_gather')")
    async with service.database.connection(read_only=True, expensive=True) as db:
        assert (await db.execute(query)).scalar_one() == "0"
    async with service.database.connection(read_only=True) as db:
        assert (await db.execute(query)).scalar_one() != "0"


def test_every_list_that_is_searched_or_counted_is_one(registry: Registry) -> None:
    for bound in registry.operations.values():
        fields = bound.operation.model_fields
        if "search" in fields:
            assert bound.validator.validate_python({"search": "x"}).expensive
        if "exact" in str(getattr(fields.get("count"), "annotation", "")):
            needed = {name: UUID(int=1) for name, field in fields.items() if field.is_required()}
            assert bound.validator.validate_python({**needed, "count": "exact"}).expensive
            assert not bound.validator.validate_python(needed).expensive
