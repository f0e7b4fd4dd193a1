"""A key is executed at most once; a repeat gets the stored reply, byte for byte."""

import asyncio
import json
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.running.registry import Registry
from contracts.planning.tasks import TaskUpdated
from fleetbus.client import Bus
from fleetbus.server.config import Settings
from fleetbus.server.service import Service
from tests.bus.asking import (
    CREATE,
    NOTE,
    RUN,
    Asker,
    Got,
    add_tasks,
    column_of,
    count_of,
    eventually,
    locked,
    waiting_for_locks,
)
from tests.kit.outbox import Outbox

SENDS = 32


@pytest.fixture
async def second(
    service: Service, settings: Settings, registry: Registry
) -> AsyncIterator[Service]:
    """A second process's worth of service beside the first."""
    running = Service(settings, registry)
    await running.start()
    try:
        yield running
    finally:
        assert await running.stop()


def append_sql(task: UUID) -> dict[str, object]:
    sql = f"UPDATE planning.tasks SET summary = concat(summary, '.') WHERE id = '{task}'"
    return {"sql": [sql], "task": str(task)}


def assert_one_effect(replies: list[Got]) -> None:
    """All the same reply, of which all but one are marked as replayed."""
    assert {got.status for got in replies} == {200}
    assert len({got.data for got in replies}) == 1
    assert len({got.position for got in replies}) == 1
    assert sum(not got.replayed for got in replies) == 1


class TestRepeat:
    @pytest.mark.parametrize("shape", ["decider", "handler"])
    async def test_it_gets_the_same_bytes(
        self, ask: Asker, db: AsyncConnection, outbox: Outbox, shape: str
    ) -> None:
        [task] = await add_tasks(db)
        subject, body = (NOTE, {"id": str(task)}) if shape == "decider" else (RUN, append_sql(task))

        first, second = [await ask(subject, body, key="k") for _ in range(2)]

        assert_one_effect([first, second])
        [event] = await outbox.all()
        assert event.cause == "k"
        replies = (first.position, first.replayed, second.replayed)
        assert replies == (str(event.position), False, True)
        assert await column_of(db, "summary", task) == "."

    async def test_what_is_stored_is_what_was_sent(self, ask: Asker, db: AsyncConnection) -> None:
        [task] = await add_tasks(db)

        got = await ask(NOTE, {"id": str(task), "note": "naïve – 日本 \u2028 \U0001f980"}, key="k")

        [row] = (await db.execute(text("SELECT * FROM bus.requests"))).all()
        assert (row.reply.encode(), row.status, row.key) == (got.data, 200, "k")
        assert str(row.position) == got.position

    async def test_the_state_of_today_does_not_matter(
        self, ask: Asker, db: AsyncConnection
    ) -> None:
        [task] = await add_tasks(db)
        first = await ask(NOTE, {"id": str(task)}, key="k")
        await db.execute(text("DELETE FROM planning.tasks"))

        second = await ask(NOTE, {"id": str(task)}, key="k")

        assert (second.data, second.replayed) == (first.data, True)

    async def test_it_does_not_create_twice(self, ask: Asker, db: AsyncConnection) -> None:
        replies = [await ask(CREATE, {"name": "one"}, key="k") for _ in range(3)]

        assert_one_effect(replies)
        assert await count_of(db, "planning.projects") == 1

    async def test_without_a_key_it_runs_again(self, ask: Asker, db: AsyncConnection) -> None:
        [task] = await add_tasks(db)

        for _ in range(2):
            await ask(NOTE, {"id": str(task)})

        assert await column_of(db, "summary", task) == ".."


class TestConcurrently:
    @pytest.mark.parametrize("shape", ["decider", "handler", "create"])
    async def test_duplicates_have_one_effect(
        self, ask: Asker, db: AsyncConnection, outbox: Outbox, shape: str
    ) -> None:
        await _send_duplicates(ask, db, outbox, shape)

    @pytest.mark.parametrize("shape", ["decider", "handler", "create"])
    async def test_duplicates_on_two_processes_have_one_effect(
        self, ask: Asker, second: Service, db: AsyncConnection, outbox: Outbox, shape: str
    ) -> None:
        for _ in range(5):
            await _send_duplicates(ask, db, outbox, shape)

        served = second.dispatcher.stats.operations
        assert sum(served[subject].requests for subject in (NOTE, RUN, CREATE)) > 0

    async def test_duplicates_of_a_claim_take_one_task(
        self, ask: Asker, second: Service, db: AsyncConnection, outbox: Outbox
    ) -> None:
        assert second.client.is_connected
        await add_tasks(db, 10, status="pending", attempt=0)

        replies = await asyncio.gather(
            *(ask("db.tasks.claim", {"agent_id": "a"}, key="k") for _ in range(SENDS))
        )

        assert_one_effect(list(replies))
        claimed = "SELECT count(*) FROM planning.tasks WHERE status = 'in_progress'"
        assert (await db.execute(text(claimed))).scalar_one() == 1
        assert await outbox.types() == ["task.claimed"]

    async def test_a_repeat_waits_for_the_first_which_still_runs(
        self, ask: Asker, second: Service, service: Service, db: AsyncConnection
    ) -> None:
        """Wherever it lands: the second creation must not meet the first one's unique name."""
        sql = [
            "INSERT INTO planning.projects (id, name, url) VALUES (gen_random_uuid(), 'a', 'b')",
            "SELECT pg_sleep(0.5)",
        ]

        replies = await asyncio.gather(*(ask(RUN, {"sql": sql}, key="k") for _ in range(6)))

        assert_one_effect(list(replies))
        assert await count_of(db, "planning.projects") == 1

    async def test_a_repeat_of_a_command_that_waits_for_a_lock(
        self, ask: Asker, second: Service, db: AsyncConnection
    ) -> None:
        [task] = await add_tasks(db)
        async with locked(db, task):
            asked = [
                asyncio.create_task(ask(NOTE, {"id": str(task)}, key="k")) for _ in range(SENDS)
            ]
            await eventually(lambda: waiting_for_locks(db))

        assert_one_effect(list(await asyncio.gather(*asked)))
        assert await column_of(db, "summary", task) == "."


async def _send_duplicates(ask: Asker, db: AsyncConnection, outbox: Outbox, shape: str) -> None:
    [task] = await add_tasks(db)
    subject, body = {
        "decider": (NOTE, {"id": str(task)}),
        "handler": (RUN, append_sql(task)),
        "create": (CREATE, {"name": f"project {task}", "id": str(task)}),
    }[shape]
    events, projects = await outbox.count(), await count_of(db, "planning.projects")

    replies = await asyncio.gather(*(ask(subject, body, key=f"k-{task}") for _ in range(SENDS)))

    assert_one_effect(list(replies))
    if shape == "create":
        assert await count_of(db, "planning.projects") == projects + 1
    else:
        assert await column_of(db, "summary", task) == "."
        assert await outbox.count() == events + 1


class TestKeys:
    @pytest.mark.parametrize("key", ["k" * 200, "ключ", "a: b", "🦀", "0"])
    async def test_any_printable_text_is_one_and_travels_with_the_event(
        self, ask: Asker, bus: Bus, db: AsyncConnection, key: str
    ) -> None:
        [task] = await add_tasks(db)

        async with bus.events(TaskUpdated) as events:
            replies = [await ask(NOTE, {"id": str(task)}, key=key) for _ in range(2)]
            async with asyncio.timeout(5):
                delivery = await events.delivery()

        assert_one_effect(replies)
        assert delivery.cause == key


class TestReused:
    async def test_with_another_body(self, ask: Asker, db: AsyncConnection) -> None:
        [task] = await add_tasks(db)
        await ask(NOTE, {"id": str(task), "note": "a"}, key="k")

        got = await ask(NOTE, {"id": str(task), "note": "b"}, key="k")

        assert (got.status, got.type, got.body["key"]) == (409, "idempotency_key_reused", "k")
        assert await column_of(db, "summary", task) == "a"

    async def test_with_another_subject(self, ask: Asker, db: AsyncConnection) -> None:
        [task] = await add_tasks(db)
        body = {"id": str(task)}
        await ask("db.tasks.complete", body, key="k")

        got = await ask(NOTE, body, key="k")

        assert (got.status, got.type) == (409, "idempotency_key_reused")

    async def test_at_the_same_time(self, ask: Asker, db: AsyncConnection) -> None:
        tasks = await add_tasks(db, 8)

        replies = await asyncio.gather(*(ask(NOTE, {"id": str(t)}, key="k") for t in tasks))

        assert sorted(got.status for got in replies) == [200] + [409] * 7
        assert await count_of(db, "bus.outbox") == 1

    async def test_of_a_query_it_means_nothing(self, ask: Asker, db: AsyncConnection) -> None:
        tasks = await add_tasks(db, 2)

        replies = [await ask("db.tasks.get", {"id": str(task)}, key="k") for task in tasks]

        assert [got.body["id"] for got in replies] == [str(task) for task in tasks]
        assert await count_of(db, "bus.requests") == 0


class TestRefused:
    async def test_it_is_tried_anew(self, ask: Asker, db: AsyncConnection) -> None:
        [task] = await add_tasks(db, status="pending")
        body = {"id": str(task)}
        assert (await ask("db.tasks.complete", body, key="k")).status == 409
        assert await count_of(db, "bus.requests") == 0
        await db.execute(text("UPDATE planning.tasks SET status = 'in_progress'"))

        got = await ask("db.tasks.complete", body, key="k")

        assert (got.status, got.replayed) == (200, False)

    async def test_a_refused_handler_is_tried_anew(self, ask: Asker, db: AsyncConnection) -> None:
        for _ in range(2):
            got = await ask(RUN, {"sql": [], "then": "refuse"}, key="k")
            assert (got.status, got.replayed) == (409, False)

        assert await count_of(db, "bus.requests") == 0

    async def test_with_a_change_that_is_kept_it_is_replayed(
        self, ask: Asker, db: AsyncConnection
    ) -> None:
        """Work that came too late: kept once, refused each time with the same words."""
        [task] = await add_tasks(db, attempt=2)
        body = {"id": str(task), "attempt": 1, "summary": "late"}

        first, second = [await ask("db.tasks.complete", body, key="k") for _ in range(2)]

        assert (first.status, first.type) == (409, "stale_attempt")
        assert (second.data, second.status) == (first.data, first.status)
        assert second.headers == first.headers | {"Fleet-Replayed": "true"}
        assert len(await column_of(db, "late_results", task)) == 1
        assert await count_of(db, "bus.outbox") == 1


class TestAfterACrash:
    @pytest.mark.parametrize("shape", ["decider", "handler"])
    async def test_a_reply_that_was_never_sent_is_sent_to_the_retry(
        self, ask: Asker, service: Service, db: AsyncConnection, outbox: Outbox, shape: str
    ) -> None:
        """Between COMMIT and reply the process dies; another one gets the retry."""
        [task] = await add_tasks(db)
        subject, body = (NOTE, {"id": str(task)}) if shape == "decider" else (RUN, append_sql(task))
        lost = asyncio.Event()
        bound = service.registry.operations[subject]
        service.dispatcher.accept(
            bound, json.dumps(body).encode(), {"Nats-Msg-Id": "k"}, lambda _: lost.set()
        )
        await lost.wait()

        got = await ask(subject, body, key="k")

        position = str((await outbox.last()).position)
        assert (got.status, got.replayed, got.position) == (200, True, position)
        assert await column_of(db, "summary", task) == "."
