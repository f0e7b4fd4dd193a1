"""The log of events, the story of an entity, and waiting until the stream has what was told."""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.errors import DeadlineExceeded, InvalidRequest
from bus.contract.page import Page
from bus.running.published import Published
from bus.running.registry import Registry
from contracts.events.events import (
    Change,
    GetEvent,
    ListEvents,
    ListTimeline,
    RecordedEvent,
    WaitForPosition,
)
from contracts.planning.projects import CreateProject
from contracts.planning.tasks import ClaimTasks, CreateTask, Task, UpdateTask
from fleetbus.client import Answered, Bus, NoAnswer, connect
from fleetbus.server.config import Settings
from fleetbus.server.service import Service
from persistence.events import events
from tests.counting import Counted
from tests.fleetbus.relay.running import session_of, stream_length
from tests.kit.outbox import Outbox

pytestmark = pytest.mark.own_service  # positions are counted from the first

Statements = Callable[[], AbstractContextManager[Counted]]


async def create(bus: Bus, name: str = "one") -> Task:
    return await bus.call(CreateTask(name=name))


async def listed(bus: Bus, **filters: Any) -> list[RecordedEvent]:
    """Everything that a list has, in pages of two."""
    found: list[RecordedEvent] = []
    page: Page[RecordedEvent] = await bus.call(ListEvents(limit=2, **filters))
    while True:
        found += page.items
        if page.next_cursor is None:
            return found
        page = await bus.call(ListEvents(limit=2, cursor=page.next_cursor, **filters))


class TestListEvents:
    async def test_all_in_pages_by_position(self, bus: Bus, outbox: Outbox) -> None:
        for number in range(5):
            await create(bus, f"task {number}")
        found = await listed(bus)
        rows = await outbox.all()
        assert [(e.position, e.type, e.entity, e.data, e.cause) for e in found] == [
            tuple(row) for row in rows
        ]
        assert [e.position for e in await listed(bus, order="-position")] == [
            row.position for row in reversed(rows)
        ]

    async def test_of_a_type_of_an_entity_and_of_a_time(self, bus: Bus) -> None:
        tasks = [await create(bus, f"task {number}") for number in range(3)]
        await bus.call(CreateProject(name="search", url="https://git.example.org/search.git"))
        log = await listed(bus)
        assert [e.type for e in await listed(bus, type="project.created")] == ["project.created"]
        [own] = await listed(bus, entity=str(tasks[1].id))
        assert own.data["task"] == tasks[1].model_dump(mode="json")
        assert await listed(bus, since=log[1].time, until=log[3].time) == log[1:3]
        assert await listed(bus, since=log[2].time, order="-position") == log[:1:-1]
        assert await listed(bus, since=log[-1].time + timedelta(seconds=1)) == []
        assert await listed(bus, until=log[0].time) == []
        assert await listed(bus, type="task.created", since=log[1].time) == log[1:3]

    async def test_positions_beyond_four_bytes(self, bus: Bus, db: AsyncConnection) -> None:
        await db.execute(text("SELECT setval('bus.outbox_position', 5000000000)"))
        for number in range(3):
            await create(bus, f"task {number}")
        assert [e.position - 5_000_000_000 for e in await listed(bus)] == [1, 2, 3]

    async def test_wrong_filters_are_refused(self, bus: Bus) -> None:
        page = await bus.call(ListEvents(limit=1))
        assert page.next_cursor is None
        with pytest.raises(InvalidRequest):
            await bus.call(ListEvents(cursor="nonsense"))
        with pytest.raises(InvalidRequest):
            await bus.call(ListEvents.model_construct(_fields_set={"type"}, type="task"))

    async def test_a_page_costs_the_same_however_long_the_log_is(
        self, bus: Bus, db: AsyncConnection, statements: Statements
    ) -> None:
        await fill(db, 200_000)
        wanted: list[dict[str, Any]] = [
            {},
            {"order": "-position"},
            {"type": "rare.thing"},
            {"type": "task.completed", "order": "-position"},
            {"entity": "e77"},
        ]
        [middle] = await listed(bus, type="rare.thing")
        assert middle.position == 100_000
        wanted += [{"since": middle.time}, {"until": middle.time, "order": "-position"}]
        for filters in wanted:
            await db.execute(text("BEGIN"))
            before = await rows_read(db)
            await events.page(db, ListEvents(limit=10, **filters))
            assert 0 < await rows_read(db) - before < 15_000, filters
            await db.execute(text("COMMIT"))
        with statements() as counted:
            await bus.call(ListEvents(limit=10, type="task.completed", entity="e77"))
        assert counted.total == 1


async def fill(db: AsyncConnection, count: int) -> None:
    """A log with one rare event in its middle."""
    await db.execute(
        text("""
            INSERT INTO bus.outbox (event_id, type, entity_id, data, recorded_at)
            SELECT gen_random_uuid(),
                   CASE n WHEN :count / 2 THEN 'rare.thing' ELSE 'task.completed' END,
                   'e' || n % 1000, '{"task": {}}', now() + n * interval '1 ms'
            FROM generate_series(1, :count) AS n ORDER BY n
        """),
        {"count": count},
    )
    await db.execute(text("VACUUM ANALYZE bus.outbox"))


async def rows_read(db: AsyncConnection) -> int:
    """Rows of the outbox that this session has read so far; to be compared in one transaction."""
    query = """
        SELECT sum(seq_tup_read + idx_tup_fetch) FROM pg_stat_xact_user_tables
        WHERE schemaname = 'bus' AND relname LIKE 'outbox%'
    """
    return int(await db.scalar(text(query)) or 0)


class TestGetEvent:
    async def test_as_it_was_told(self, bus: Bus) -> None:
        task = await create(bus)
        [event] = await listed(bus)
        assert await bus.call(GetEvent(id=event.id)) == event
        assert event.entity == str(task.id)


class TestListTimeline:
    async def test_the_story_of_one_task(self, bus: Bus) -> None:
        task = await create(bus)
        await create(bus, "another")
        await bus.call(UpdateTask(id=task.id, name="new"), key="renaming")
        await bus.call(ClaimTasks(agent_id="a", limit=2))

        page = await bus.call(ListTimeline(entity=str(task.id)))
        assert [item.version for item in page.items] == sorted(
            item.version or 0 for item in page.items
        )
        first, renamed, *_ = page.items
        assert (first.type, first.changes) == ("task.created", [])
        assert renamed.cause == "renaming"
        assert Change(field="name", before="one", after="new") in renamed.changes
        assert not {"version", "updated_at"} & {change.field for change in renamed.changes}
        last = {change.field: change.after for change in page.items[-1].changes}
        assert last["status"] == "in_progress"

    async def test_pages_join_without_a_seam(self, bus: Bus) -> None:
        task = await create(bus, "name 0")
        for number in range(1, 6):
            await bus.call(UpdateTask(id=task.id, name=f"name {number}"))
        whole = await bus.call(ListTimeline(entity=str(task.id)))
        items = []
        cursor = None
        while True:
            page = await bus.call(ListTimeline(entity=str(task.id), limit=2, cursor=cursor))
            items += page.items
            if (cursor := page.next_cursor) is None:
                break
        assert items == whole.items
        assert [change.before for item in items[1:] for change in item.changes] == [
            f"name {number}" for number in range(5)
        ]

    async def test_of_nobody(self, bus: Bus) -> None:
        assert (await bus.call(ListTimeline(entity="nobody"))).items == []


class TestWaitForPosition:
    async def test_the_stream_has_it_when_it_is_answered(self, bus: Bus) -> None:
        for number in range(1, 6):
            told = await bus.request(CreateTask(name=f"task {number}"))
            await bus.settled(told)
            assert await stream_length(bus.nats) == number

    async def test_what_is_not_there_yet_is_said_in_time(self, bus: Bus) -> None:
        answer = await bus.call(WaitForPosition(position=999, timeout_ms=50))
        assert (answer.position, answer.published) == (999, False)

    async def test_a_request_waits_no_longer_than_its_caller(self, bus: Bus) -> None:
        impatient = {"Fleet-Deadline": str(int((time.time() + 0.3) * 1000))}
        answer = await bus.nats.request(
            "db.events.wait", b'{"position": 999}', timeout=20, headers=impatient
        )
        assert (answer.headers or {})["Nats-Service-Error-Code"] == str(DeadlineExceeded.status)

    async def test_a_hole_is_waited_for(self, bus: Bus, database_url: str) -> None:
        """A transaction that is still running has taken a position before this one."""
        async with session_of(database_url) as session:
            transaction = session.transaction()
            await transaction.start()
            await session.execute(
                "INSERT INTO bus.outbox (event_id, type, entity_id, data) "
                "VALUES (gen_random_uuid(), 'task.completed', 'slow', '{}')"
            )
            told = await bus.request(CreateTask(name="quick"))
            await bus.settled(told)
            answer = await bus.call(WaitForPosition(position=1, timeout_ms=100))
            assert not answer.published
            await transaction.commit()
            await bus.settled(1)

    async def test_without_a_relay_the_client_says_so(
        self, settings: Settings, registry: Registry
    ) -> None:
        service = Service(settings.model_copy(update={"relay": False}), registry)
        await service.start()
        try:
            async with connect(settings.nats_url, attempt_timeout=0.5) as bus:
                told: Answered[Task] = await bus.request(CreateTask(name="one"))
                with pytest.raises(NoAnswer, match="position 1 is not in the stream yet"):
                    await bus.settled(told, timeout=1)
        finally:
            await service.stop()

    async def test_many_wait_with_one_query_a_second_and_no_connection(
        self, service: Service, statements: Statements
    ) -> None:
        """More than there are connections; only the poller asks, once for all of them."""
        published = Published(service.database, interval=0.2)
        with statements() as counted:
            waiting = [published.wait(1000 + number, 0.5) for number in range(50)]
            assert await asyncio.gather(*waiting) == [False] * 50
        await published.close()
        assert 1 <= counted.total <= 4

    async def test_a_lost_announcement_is_made_up_for(
        self, service: Service, bus: Bus, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(service.published, "heard", lambda _: None)
        await bus.settled(await bus.request(CreateTask(name="one")))
        await bus.settled(await bus.request(CreateTask(name="two")))
        assert await stream_length(bus.nats) == 2


class TestLargeEvents:
    """What does not fit one message is cut, and never in the way of what lies behind it."""

    async def test_a_page_ends_before_it_is_too_large_and_nothing_is_passed_over(
        self, bus: Bus, db: AsyncConnection
    ) -> None:
        await record(db, [10, 700_000, 700_000, 10, 3_000_000, 10, 950_000])
        for order in ("position", "-position"):
            seen, cursor, cut = list[int](), None, list[bool]()
            while True:
                page = await bus.call(
                    ListEvents(entity="big", order=order, cursor=cursor, limit=500)
                )
                seen += [event.position for event in page.items]
                cut += [event.shortened for event in page.items]
                if (cursor := page.next_cursor) is None:
                    break
            assert len(seen) == 7
            assert seen == sorted(seen, reverse=order == "-position")
            assert sum(cut) == 1

    async def test_one_alone_is_cut_where_it_does_not_fit(
        self, bus: Bus, db: AsyncConnection
    ) -> None:
        small, large = await record(db, [900_000, 3_000_000])
        assert not (await bus.call(GetEvent(id=small))).shortened
        told = await bus.call(GetEvent(id=large))
        assert told.shortened
        assert told.data["task"] == {"id": "big", "version": 2, "text": "x" * 4096 + "…"}

    async def test_a_story_goes_on_behind_it(self, bus: Bus, db: AsyncConnection) -> None:
        await record(db, [10, 3_000_000, 900_000, 10])
        versions, cursor = list[int | None](), None
        while True:
            page = await bus.call(ListTimeline(entity="big", cursor=cursor))
            versions += [item.version for item in page.items]
            if (cursor := page.next_cursor) is None:
                break
        assert versions == [1, 2, 3, 4]


async def record(db: AsyncConnection, sizes: list[int]) -> list[UUID]:
    """Events on one entity with texts of these lengths; nobody else can record so large ones."""
    ids = [uuid4() for _ in sizes]
    for number, (event_id, size) in enumerate(zip(ids, sizes, strict=True), start=1):
        data = {"task": {"id": "big", "version": number, "text": "x" * size}}
        await db.execute(
            text(
                "INSERT INTO bus.outbox (event_id, type, entity_id, data) "
                "VALUES (:id, 'task.updated', 'big', CAST(:data AS json))"
            ),
            {"id": event_id, "data": json.dumps(data)},
        )
    return ids
