"""Sessions are cancelled and ended by somebody else, at any moment and at any statement."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.running.registry import Registry
from bus.storage.driver import driver_of
from fleetbus.server.service import Service
from tests.bus.asking import (
    READ,
    RUN,
    Asker,
    Got,
    add_tasks,
    asking,
    assert_problem,
    eventually,
    open_transactions,
)
from tests.bus.outages import serving
from tests.bus.test_storms import HEARTBEAT, register

OURS = "datname = current_database() AND application_name = 'fleetbus' AND pid <> pg_backend_pid()"

SLEEPS = "query LIKE 'SELECT pg_sleep(%' AND state = 'active'"

TOLD = {200, 503}
"""What a caller may hear while sessions are struck."""


class Strike(NamedTuple):
    """What is done to how many of a hundred sessions, how many milliseconds after the last one."""

    how: str
    share: int
    after: int


STRIKES = st.lists(
    st.builds(
        Strike,
        how=st.sampled_from(["pg_cancel_backend", "pg_cancel_backend", "pg_terminate_backend"]),
        share=st.sampled_from([20, 60, 100]),
        after=st.integers(0, 12),
    ),
    min_size=10,
    max_size=30,
)


@pytest.fixture(params=[False, True], ids=["directly", "as through a pooler"])
async def struck(
    request: pytest.FixtureRequest, database_url: str, nats_url: str, registry: Registry
) -> AsyncIterator[Service]:
    pooler = {"database_pooler_url": database_url} if request.param else {}
    async with serving(registry, database_url, nats_url, sweeper=True, **pooler) as service:
        yield service


async def of_all_kinds(ask: Asker, agent: str, tasks: list[str]) -> list[Got]:
    """Commands alone and gathered, queries, look-ups, lists and heartbeats, all at once."""
    return await asyncio.gather(
        *(ask("db.tasks.create", {"name": "made"}) for _ in range(4)),
        *(ask("db.tasks.update", {"id": task, "name": "named"}) for task in tasks),
        *(ask("db.tasks.get", {"id": task}) for task in tasks),
        *(ask(HEARTBEAT, {"id": agent, "incarnation": 1}) for _ in range(3)),
        ask("db.tasks.list", {"limit": 3}),
        ask("db.tasks.list", {"search": "made", "count": "exact", "limit": 3}),
        ask("db.tasks.queue"),
        ask(RUN, {"sql": ["SELECT 1", "SELECT pg_sleep(0.005)"]}),
        ask(READ, {"sql": ["SELECT 1"]}),
    )


async def strike(db: AsyncConnection, strikes: list[Strike]) -> None:
    for how, share, after in strikes:
        await asyncio.sleep(after / 1000)
        await db.execute(
            text(
                f"SELECT {how}(pid) FROM pg_stat_activity WHERE {OURS} AND 100 * random() < {share}"
            )
        )


async def at_sleep(db: AsyncConnection, count: int) -> bool:
    query = f"SELECT count(*) FROM pg_stat_activity WHERE {OURS} AND {SLEEPS}"
    return int((await db.execute(text(query))).scalar_one()) == count


async def nothing_is_open(db: AsyncConnection) -> bool:
    return await open_transactions(db) == 0


@given(strikes=STRIKES)
@hypothesis_settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    database=None,
)
async def test_whatever_is_struck_is_no_bug_and_is_over_with_the_last_strike(
    struck: Service, nats_url: str, db: AsyncConnection, strikes: list[Strike]
) -> None:
    async with asking(nats_url) as ask:
        [agent] = await register(ask, 1)
        tasks = [str(task) for task in await add_tasks(db, 3)]
        striking = asyncio.create_task(strike(db, strikes))
        heard: list[Got] = []
        while not striking.done():
            heard += await of_all_kinds(ask, agent, tasks)
        await striking
        afterwards = await of_all_kinds(ask, agent, tasks) + await of_all_kinds(ask, agent, tasks)

    assert {got.status for got in heard} <= TOLD, [got for got in heard if got.status not in TOLD]
    assert {got.status for got in afterwards} == {200}
    for connection in struck.database.idle():
        assert not driver_of(connection).is_in_transaction()
    # The sweeper begins one now and then; none stays open.
    await eventually(partial(nothing_is_open, db))
    pools = struck.database.use().values()
    assert [pool.waiting for pool in pools] == [0] * len(pools)
    assert len(struck.database.idle()) <= sum(pool.size for pool in pools)


@pytest.mark.parametrize("how", ["pg_cancel_backend", "pg_terminate_backend"])
@pytest.mark.parametrize("subject", [RUN, READ])
async def test_work_that_somebody_else_cancelled_is_done_again(
    ask: Asker, db: AsyncConnection, how: str, subject: str
) -> None:
    asked = asyncio.create_task(ask(subject, {"sql": ["SELECT pg_sleep(0.3)"]}))
    await eventually(partial(at_sleep, db, 1))

    await db.execute(text(f"SELECT {how}(pid) FROM pg_stat_activity WHERE {OURS}"))

    assert (await asked).status == 200


async def test_work_that_is_cancelled_again_and_again_is_told_so(
    ask: Asker, db: AsyncConnection
) -> None:
    asked = asyncio.create_task(ask(RUN, {"sql": ["SELECT pg_sleep(5)"]}))
    cancel = text(f"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE {OURS} AND {SLEEPS}")
    while not asked.done():
        await db.execute(cancel)
        await asyncio.sleep(0.01)

    got = await asked
    assert_problem(got, 503, "unavailable", retryable=True)
    assert "cancelled" in got.body["detail"]


async def test_a_transaction_that_is_left_open_ends_with_its_session(
    service: Service, ask: Asker, db: AsyncConnection
) -> None:
    async with service.database.connection() as taken:
        await driver_of(taken).execute("BEGIN; SET LOCAL statement_timeout = 1")

    assert taken not in service.database.idle()
    assert await open_transactions(db) == 0
    assert {(await ask(RUN, {"sql": ["SELECT 1"]})).status for _ in range(10)} == {200}
