"""The log of an agent on its way: complete and in order, whatever is said and whoever is away."""

import asyncio
import json
from collections.abc import AsyncIterator

import nats
import pytest
import pytest_asyncio
from nats.aio.msg import Msg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.errors import InvalidRequest
from bus.contract.page import Page
from bus.kit.aio import end
from bus.kit.ids import uuid7
from bus.kit.nats_io import flush
from contracts.agents.agents import Agent
from contracts.agents.log_chunks import AppendManyLogChunks, ListLogChunks, LogChunk
from fleetbus.client import Bus, NoAnswer, connect, log
from fleetbus.client.log import LogBuffer
from tests.fleetbus.worker.arrange import until

AGENT = Agent.trusted({"id": uuid7(), "name": "otter", "incarnation": 3})


REFUSED = "what the service does not take"


async def refuse(message: Msg) -> None:
    headers = {"Nats-Service-Error-Code": "400", "Nats-Service-Error": "no"}
    problem = {"type": "invalid_request", "detail": "no", "errors": []}
    await message._client.publish(message.reply, json.dumps(problem).encode(), headers=headers)


class Keeper:
    """Answers for the service while it is there, and remembers what it was sent."""

    def __init__(self) -> None:
        self.there = True
        self.heard: list[Msg] = []
        self.kept: dict[str, AppendManyLogChunks] = {}

    async def take(self, message: Msg) -> None:
        self.heard.append(message)
        if not self.there:
            return
        if REFUSED.encode() in message.data:
            await refuse(message)
            return
        request = AppendManyLogChunks.model_validate_json(message.data)
        self.kept.setdefault((message.headers or {})["Nats-Msg-Id"], request)
        item = {"id": str(uuid7()), "created_at": "2026-01-31T12:00:00Z"}
        await message.respond(json.dumps({"items": [item] * len(request.items)}).encode())

    @property
    def text(self) -> str:
        return "".join(item.content for request in self.kept.values() for item in request.items)


@pytest_asyncio.fixture
async def keeper(nats_url: str) -> AsyncIterator[Keeper]:
    client = await nats.connect(nats_url)
    keeper = Keeper()
    await client.subscribe(AppendManyLogChunks.declared.subject, cb=keeper.take)
    await flush(client)
    yield keeper
    await client.close()


@pytest_asyncio.fixture
async def buffer(nats_url: str, keeper: Keeper) -> AsyncIterator[LogBuffer]:
    async with connect(nats_url, timeout=0.5, attempt_timeout=0.25) as bus:
        yield LogBuffer(bus, AGENT)


class TestLogBuffer:
    async def test_says_whose_it_is(self, buffer: LogBuffer, keeper: Keeper) -> None:
        buffer.add("one")
        await buffer.flush()
        [request] = keeper.kept.values()
        assert (request.agent_id, request.agent_name) == (AGENT.id, "otter")
        assert request.session_number == 3

    async def test_stores_in_the_background_many_at_once(
        self, buffer: LogBuffer, keeper: Keeper
    ) -> None:
        storing = asyncio.create_task(buffer.run())
        for number in range(100):
            buffer.add(f"line {number}")

        async def stored() -> bool:
            return keeper.text.count("\n") == 100

        await until(stored)
        await end(storing)
        assert len(keeper.kept) == 1

    async def test_requests_are_bounded_and_nothing_is_lost_between_them(
        self, buffer: LogBuffer, keeper: Keeper
    ) -> None:
        said = [f"{number}: {'x' * 2_000}\n" for number in range(1_200)]
        for line in said:
            buffer.add(line)
        await buffer.flush()
        assert keeper.text == "".join(said)
        assert all(len(request.items) <= 500 for request in keeper.kept.values())
        assert max(len(message.data) for message in keeper.heard) < 512 * 1024

    @pytest.mark.parametrize("character", ["x", "\x01", "ü", "\U0001f9a6"])
    async def test_one_long_text_is_cut_whatever_is_in_it(
        self, character: str, buffer: LogBuffer, keeper: Keeper
    ) -> None:
        buffer.add(character * 300_000)
        await buffer.flush()
        assert keeper.text == character * 300_000 + "\n"
        assert max(len(message.data) for message in keeper.heard) < 1024 * 1024

    @pytest.mark.parametrize(
        ("said", "stored"), [("", "\n"), ("a\n", "a\n"), ("\x00\ud800é", "\ufffd\ufffdé\n")]
    )
    async def test_any_text_can_be_said(
        self, said: str, stored: str, buffer: LogBuffer, keeper: Keeper
    ) -> None:
        buffer.add(said)
        await buffer.flush()
        assert keeper.text == stored

    async def test_what_got_no_answer_is_sent_again_as_it_was(
        self, buffer: LogBuffer, keeper: Keeper
    ) -> None:
        keeper.there = False
        buffer.add("one")
        with pytest.raises(NoAnswer):
            await buffer.flush()
        buffer.add("two")
        keeper.there = True
        await buffer.flush()
        assert keeper.text == "one\ntwo\n"
        first = {(m.headers or {})["Nats-Msg-Id"] for m in keeper.heard if b"one" in m.data}
        assert len(first) == 1

    async def test_while_the_service_is_away_it_goes_on_trying(
        self, buffer: LogBuffer, keeper: Keeper
    ) -> None:
        keeper.there = False
        storing = asyncio.create_task(buffer.run())
        buffer.add("one")

        async def heard() -> bool:
            return len(keeper.heard) > 2

        await until(heard)
        keeper.there = True

        async def stored() -> bool:
            return keeper.text == "one\n"

        await until(stored)
        await end(storing)

    async def test_of_too_much_the_oldest_is_dropped_and_that_is_said(
        self, buffer: LogBuffer, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(log, "KEPT", 30)
        for number in range(10):
            buffer.add(f"line {number}")
        await buffer.flush()
        note, *rest = keeper.text.splitlines()
        assert json.loads(note) == {"fleetbus": "6 pieces of the log were dropped"}
        assert rest == ["line 6", "line 7", "line 8", "line 9"]

    async def test_what_is_refused_for_good_does_not_hold_up_the_rest(
        self, buffer: LogBuffer, keeper: Keeper
    ) -> None:
        buffer.add(REFUSED)
        with pytest.raises(InvalidRequest):
            await buffer.flush()
        buffer.add("good")
        await buffer.flush()
        assert keeper.text == "good\n"


class TestStored:
    """What is said through an agent, as the real service has it."""

    async def test_under_its_name_in_its_order(self, bus: Bus, db: AsyncConnection) -> None:
        async with bus.agent(name="otter") as agent:
            for number in range(12):
                agent.log(f"line {number}")
        query = "SELECT agent_id, agent_name, session_number, content FROM agents.log_chunks"
        rows = (await db.execute(text(f"{query} ORDER BY created_at, id"))).all()
        assert {row[:3] for row in rows} == {(agent.id, "otter", 1)}
        assert [row.content for row in rows] == [f"line {number}\n" for number in range(12)]

    async def test_a_page_at_a_time_forward_and_backward(self, bus: Bus) -> None:
        """Both ways the same; what is said meanwhile is on the last page forward only."""
        async with bus.agent() as agent:
            for number in range(12):
                agent.log(f"{number}")
            await agent._log.flush()
            first = ListLogChunks(agent_id=agent.id, limit=5)
            forward = await bus.call(first)
            last = ListLogChunks(agent_id=agent.id, limit=5, order="-created_at")
            backward = await bus.call(last)
            agent.log("12")
            await agent._log.flush()

            ascending = [*_said(forward), *await _rest(bus, first, forward)]
            descending = [*_said(backward), *await _rest(bus, last, backward)]

        assert ascending == [f"{number}\n" for number in range(13)]
        assert descending == [f"{number}\n" for number in reversed(range(12))]

    async def test_while_the_agent_still_works(self, bus: Bus) -> None:
        async with bus.agent() as agent:
            agent.log("one")

            async def stored() -> bool:
                return _said(await bus.call(ListLogChunks(agent_id=agent.id))) == ["one\n"]

            await until(stored)


def _said(page: Page[LogChunk]) -> list[str]:
    return [chunk.content for chunk in page.items]


async def _rest(bus: Bus, asked: ListLogChunks, page: Page[LogChunk]) -> list[str]:
    """What is on the pages after this one."""
    said: list[str] = []
    while page.next_cursor is not None:
        fields = asked.model_dump(exclude_unset=True) | {"cursor": page.next_cursor}
        page = await bus.call(ListLogChunks(**fields))
        said += _said(page)
    return said
