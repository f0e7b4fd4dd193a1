import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.kit.ids import uuid7
from bus.storage import partitions
from bus.storage.partitions import PARTITIONED
from contracts.agents.agents import RegisterAgent
from contracts.agents.log_chunks import (
    AppendLogChunk,
    AppendManyLogChunks,
    CountLogSessions,
    DeleteLogChunks,
    ListLogChunks,
    LogChunk,
    LogChunkItem,
)
from fleetbus.client import Bus
from fleetbus.server.service import Service
from handlers.agents.log_chunks import DELETED_AT_ONCE
from tests.counting import counting
from tests.kit.outbox import Outbox

FILL = text("""
    INSERT INTO agents.log_chunks (id, agent_id, content, created_at)
    SELECT uuidv7(), :agent_id, 'x', now() - make_interval(secs => n)
    FROM generate_series(1, :count) AS n
""")


async def read(bus: Bus, **asked: Any) -> list[LogChunk]:
    """A whole log, page by page."""
    found: list[LogChunk] = []
    cursor = None
    while True:
        page = await bus.call(ListLogChunks(cursor=cursor, **asked))
        found += page.items
        if (cursor := page.next_cursor) is None:
            return found


class TestAppendLogChunk:
    async def test_under_the_name_of_its_agent(self, bus: Bus, outbox: Outbox) -> None:
        agent = await bus.call(RegisterAgent(name="otter"))
        told = await outbox.count()
        made = await bus.call(AppendLogChunk(agent_id=agent.id, session_number=2, content="a\n"))

        [chunk] = await read(bus, agent_id=agent.id)

        assert (chunk.id, chunk.created_at) == (made.id, made.created_at)
        assert (chunk.agent_name, chunk.session_number, chunk.content) == ("otter", 2, "a\n")
        assert await outbox.count() == told

    async def test_of_nobody_known_and_under_another_name(self, bus: Bus) -> None:
        stranger = uuid7()
        for name in (None, "badger"):
            await bus.call(AppendLogChunk(agent_id=stranger, agent_name=name, content="a"))

        assert [one.agent_name for one in await read(bus, agent_id=stranger)] == [None, "badger"]

    async def test_together_in_few_statements_and_in_their_order(
        self, bus: Bus, service: Service
    ) -> None:
        agent = uuid7()
        appends = [AppendLogChunk(agent_id=agent, content=str(n)) for n in range(100)]

        with counting(service.database) as counted:
            await asyncio.gather(*(bus.call(one) for one in appends))

        assert counted.total < 100
        assert [one.content for one in await read(bus, agent_id=agent, limit=7)] == [
            *map(str, range(100))
        ]


class TestAppendManyLogChunks:
    async def test_all_in_their_order(self, bus: Bus) -> None:
        agent = await bus.call(RegisterAgent(name="otter"))
        items = [LogChunkItem(content=str(n)) for n in range(500)]
        made = await bus.call(AppendManyLogChunks(agent_id=agent.id, items=items))

        chunks = await read(bus, agent_id=agent.id, limit=499)

        assert [chunk.content for chunk in chunks] == [*map(str, range(500))]
        assert [chunk.id for chunk in chunks] == [item.id for item in made.items]
        assert {chunk.agent_name for chunk in chunks} == {"otter"}

    @pytest.mark.parametrize("count", [0, 501])
    def test_no_more_than_500(self, count: int) -> None:
        items = [{"content": "a"}] * count
        with pytest.raises(ValueError, match="items"):
            AppendManyLogChunks.model_validate({"agent_id": uuid7(), "items": items})


class TestListLogChunks:
    async def test_forward_backward_and_of_one_session(self, bus: Bus) -> None:
        agent = uuid7()
        for n in range(6):
            append = AppendLogChunk(agent_id=agent, session_number=n % 2, content=str(n))
            await bus.call(append)
        await bus.call(AppendLogChunk(agent_id=uuid7(), content="another's"))

        async def contents(**asked: Any) -> str:
            return "".join(c.content for c in await read(bus, agent_id=agent, limit=2, **asked))

        assert await contents() == "012345"
        assert await contents(order="-created_at") == "543210"
        assert await contents(session_number=1) == "135"
        assert await contents(session_number=7) == ""

    async def test_counted(self, bus: Bus) -> None:
        agent = uuid7()
        for n in range(3):
            await bus.call(AppendLogChunk(agent_id=agent, session_number=n % 2, content=str(n)))

        page = await bus.call(ListLogChunks(agent_id=agent, limit=1, count="exact"))
        session = ListLogChunks(agent_id=agent, session_number=0, count="exact")

        assert (len(page.items), page.total) == (1, 3)
        assert (await bus.call(session)).total == 2
        assert (await bus.call(ListLogChunks(agent_id=uuid7(), count="exact"))).total == 0

    async def test_a_page_is_cut_to_what_fits_a_message(self, bus: Bus) -> None:
        agent = uuid7()
        large = ["\x01" * 131_000, "é" * 131_072, "a" * 262_144, '"' * 262_144]
        for content in large:
            await bus.call(AppendLogChunk(agent_id=agent, content=content))

        first = await bus.call(ListLogChunks(agent_id=agent))

        assert 0 < len(first.items) < 4
        assert [chunk.content for chunk in await read(bus, agent_id=agent)] == large

    @pytest.mark.parametrize("content", ["", "é" * 131_073, "\x01" * 132_000])
    def test_what_would_not_fit_is_refused(self, content: str) -> None:
        with pytest.raises(ValueError, match="content"):
            AppendLogChunk(agent_id=uuid7(), content=content)


class TestCountLogSessions:
    async def test_each_once(self, bus: Bus) -> None:
        agent = uuid7()
        assert (await bus.call(CountLogSessions(agent_id=agent))).sessions == 0
        for number in (0, 3, 3, 7):
            append = AppendLogChunk(agent_id=agent, session_number=number, content="a")
            await bus.call(append)

        assert (await bus.call(CountLogSessions(agent_id=agent))).sessions == 3


class TestDeleteLogChunks:
    async def test_the_oldest_first_a_bounded_number(self, bus: Bus, db: AsyncConnection) -> None:
        agent, other = uuid7(), uuid7()
        await db.execute(FILL, {"agent_id": agent, "count": DELETED_AT_ONCE + 5})
        await db.execute(FILL, {"agent_id": other, "count": 1})

        first = await bus.call(DeleteLogChunks(agent_id=agent))
        left = await read(bus, agent_id=agent)
        second = await bus.call(DeleteLogChunks(agent_id=agent))

        assert (first.deleted, first.remaining) == (DELETED_AT_ONCE, True)
        age = datetime.now(UTC) - left[0].created_at
        assert (len(left), age < timedelta(minutes=5)) == (5, True)
        assert (second.deleted, second.remaining) == (5, False)
        assert len(await read(bus, agent_id=other)) == 1


class TestPartitions:
    async def names(self, db: AsyncConnection) -> set[str]:
        return set(
            (await db.execute(partitions._PARTITIONS, {"parent": "agents.log_chunks"})).scalars()
        )

    async def keep(self, service: Service, days: float) -> int:
        async with service.database.dedicated.connect() as session:
            return await partitions.keep(
                session, PARTITIONED["log_chunks"], retention=timedelta(days=days)
            )

    async def test_made_ahead_and_dropped_behind(
        self, service: Service, bus: Bus, db: AsyncConnection
    ) -> None:
        assert await self.keep(service, 30) == 8
        assert await self.keep(service, 30) == 0
        old = "log_chunks_d20200101"
        await db.execute(
            text(
                f"CREATE TABLE agents.{old} PARTITION OF agents.log_chunks "
                r"FOR VALUES FROM ('2020-01-01T00\:00\:00Z') TO ('2020-01-02T00\:00\:00Z')"
            )
        )
        agent = uuid7()
        await bus.call(AppendLogChunk(agent_id=agent, content="today"))

        assert await self.keep(service, 30) == 1

        assert old not in await self.names(db)
        assert len(await read(bus, agent_id=agent)) == 1
        unplaced = await db.scalar(text("SELECT count(*) FROM agents.log_chunks_default"))
        assert unplaced == 0

    async def test_an_append_needs_none_and_what_it_left_is_forgotten_in_time(
        self, service: Service, bus: Bus, db: AsyncConnection
    ) -> None:
        agent = uuid7()
        await bus.call(AppendLogChunk(agent_id=agent, content="early"))
        await db.execute(
            text("UPDATE agents.log_chunks_default SET created_at = now() - interval '40 days'")
        )
        await bus.call(AppendLogChunk(agent_id=agent, content="late"))

        assert await self.keep(service, 30) == 7

        assert [chunk.content for chunk in await read(bus, agent_id=agent)] == ["late"]

    async def test_a_reader_holds_up_nothing_but_the_drop(
        self, service: Service, bus: Bus, db: AsyncConnection
    ) -> None:
        await self.keep(service, 30)
        async with service.database.dedicated.connect() as reader:
            await reader.execute(text("BEGIN"))
            await reader.execute(text("SELECT count(*) FROM agents.log_chunks"))

            assert await self.keep(service, -3) == 0
            await bus.call(AppendLogChunk(agent_id=uuid7(), content="meanwhile"))

            await reader.execute(text("ROLLBACK"))
        assert await self.keep(service, -3) > 0
