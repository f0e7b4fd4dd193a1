"""Batched or one by one, a history of commands leaves the same rows beside what it changes."""

import asyncio
import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.kit.ids import uuid7
from bus.running.admission import Limits
from bus.running.calls import Answer
from bus.running.dispatcher import Dispatcher
from bus.running.executor import Executor
from bus.storage.database import Database
from fleetbus import domain
from tests.bus.doors.binding import make_doors, with_doors

DOORS = 3

HOW = ["open", "open", "refuse", "refuse_and_keep", "twice", "violate", "raise", "create"]

STEPS = st.lists(
    st.tuples(st.integers(0, DOORS), st.sampled_from(HOW), st.none() | st.integers(0, 3)),
    min_size=2,
    max_size=12,
)

VISITS = "SELECT number, who FROM doors.visits WHERE door_id = :id ORDER BY number"
STATE = "SELECT version, knocks FROM doors.doors WHERE id = :id"
TOLD = """
    SELECT type, data->'door'->>'knocks' FROM bus.outbox WHERE entity_id = CAST(:id AS text)
    ORDER BY position
"""
LOOKS = (VISITS, STATE, TOLD)


@pytest_asyncio.fixture(autouse=True)
async def made(db: AsyncConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    await make_doors(db, monkeypatch)


@pytest.fixture
async def pair(database_url: str) -> AsyncIterator[list[Dispatcher]]:
    """Two on one database: one that gathers, one that takes each command by itself."""
    database = Database(database_url)
    registry = with_doors(domain.registry())
    executor = Executor(registry, database)
    try:
        yield [
            Dispatcher(registry, executor, Limits(batch=batch, concurrent_batches=1))
            for batch in (64, 1)
        ]
    finally:
        await database.close()


async def run(
    dispatcher: Dispatcher, steps: list[tuple[int, str, int | None]], db: AsyncConnection
) -> Any:
    """What came of all steps, first the creations at once, then the rest; and what they left."""
    run_, ids = str(uuid7()), [str(uuid7()) for _ in range(DOORS + 1)]
    replies: dict[int, Answer] = {}

    def send(number: int, subject: str, body: dict[str, Any], key: str | None = None) -> None:
        bound = dispatcher.registry.operations[subject]
        headers = {} if key is None else {"Nats-Msg-Id": f"{run_}-{key}"}
        answered = partial(replies.__setitem__, number)
        dispatcher.accept(bound, json.dumps(body).encode(), headers, answered)

    for number in range(DOORS):
        send(-1 - number, "db.doors.create", {"id": ids[number]})
    await dispatcher.drained()
    for number, (door, how, _) in enumerate(steps):
        if how == "create":
            send(number, "db.doors.create", {"id": ids[door]})
    await dispatcher.drained()
    for number, (door, how, key) in enumerate(steps):
        if how != "create":
            named = None if key is None else f"{door}-{how}-{key}"
            body = {"id": ids[door], "how": how, "who": f"{how} {key}"}
            send(number, "db.doors.knock", body, named)
    await dispatcher.drained()
    said = [(answer.status, answer.kind, answer.replayed) for _, answer in sorted(replies.items())]
    left = [
        [tuple(row) for row in await db.execute(text(look), {"id": id_})]
        for id_ in ids
        for look in LOOKS
    ]
    return said, left


class TestHistories:
    async def test_batched_and_one_by_one_agree(
        self, pair: list[Dispatcher], db: AsyncConnection
    ) -> None:
        loop = asyncio.get_running_loop()

        async def agree(steps: list[tuple[int, str, int | None]]) -> None:
            batched, single = [await run(dispatcher, steps, db) for dispatcher in pair]
            assert batched == single

        @examples(
            max_examples=30,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(STEPS)
        def check(steps: list[tuple[int, str, int | None]]) -> None:
            asyncio.run_coroutine_threadsafe(agree(steps), loop).result(30)

        await asyncio.to_thread(check)
