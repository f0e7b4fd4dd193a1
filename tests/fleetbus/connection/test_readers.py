"""Whoever reads events, past whatever somebody else has put among them."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from nats.js.api import RawStreamMsg

from contracts.planning.tasks import CreateTask, TaskCreated
from fleetbus.client import Bus, connect
from fleetbus.client.connection.foreign import is_event, position_of
from fleetbus.server.config import Settings
from fleetbus.server.service import Service
from tests.fleetbus.connection.raw import raw_session
from tests.fleetbus.processes.running import running

FORGED = b"ce-id: x\r\nce-type: task.created\r\nce-time: 0001-01-01T00:00:00+14:00\r\n"

FOREIGN = [
    (b"events.task.created.x", b"NATS/1.0 \xff\xff\r\n\r\n", b"{}"),
    (b"events.task.created.x", b"NATS/1.0 404 No Messages\r\n\r\n", b""),
    (b"events.task.created.x", b"NATS/1.0 100 FlowControl Request\r\n\r\n", b""),
    (b"events.task.created.\xff\x0b", None, b"\xff"),
    (b"events.task.created.x", b"NATS/1.0\r\nce-type: task.created\r\n\r\n", b"{}"),
    (b"events.task.created.x", b"NATS/1.0\r\n" + FORGED + b"Fleet-Position: 1\r\n\r\n", b"{}"),
    (
        b"events.task.created.x",
        b"NATS/1.0\r\n" + FORGED + b"Fleet-Position: 1\r\n\r\n",
        b"[" * 9000,
    ),
    (
        b"events.task.created.x",
        b"NATS/1.0\r\n" + FORGED + b"Fleet-Position: " + b"9" * 5000 + b"\r\n\r\n",
        b"{}",
    ),
]
"""Subjects, header blocks and bodies."""


class Stream:
    """A stream with an event of ours, and no relay that would look after it."""

    def __init__(self, bus: Bus, url: str, event: RawStreamMsg) -> None:
        self.bus = bus
        self._url = url
        self._event = event

    async def add_foreign(self) -> None:
        async with raw_session(self._url) as raw:
            for subject, block, body in FOREIGN:
                raw.send(subject, body, block=block)
            await raw.settled()

    async def add_event(self, name: str) -> None:
        event = self._event
        assert event.subject is not None
        assert event.data is not None
        headers = {**(event.headers or {}), "ce-id": name, "Nats-Msg-Id": name}
        headers["Fleet-Position"] = "1000"
        for fence in [key for key in headers if key.startswith(("Nats-Expected-", "Nats-Batch-"))]:
            del headers[fence]
        body = event.data.replace(b"first", name.encode())
        await self.bus.nats.jetstream().publish(event.subject, body, headers=headers)


@pytest.fixture
async def stream(settings: Settings, nats_url: str) -> AsyncIterator[Stream]:
    service = Service(settings)
    await service.start()
    async with connect(nats_url) as bus:
        await bus.settled(await bus.request(CreateTask(name="first")))
        assert await service.stop()
        yield Stream(bus, nats_url, await bus.nats.jetstream().get_msg("EVENTS", 1))


class TestClient:
    @pytest.mark.parametrize("durable", [None, "reader"])
    async def test_it_hears_the_next_event(self, stream: Stream, durable: str | None) -> None:
        async with stream.bus.events(TaskCreated, durable=durable) as events:
            await stream.add_foreign()
            await stream.add_event("last")
            async with asyncio.timeout(20):
                heard = [await anext(events)]
                while heard[-1].task.name != "last":
                    heard.append(await anext(events))
        assert [event.task.name for event in heard] == (["first"] if durable else []) + ["last"]


class TestCommandLine:
    async def test_it_shows_the_next_event(self, stream: Stream, nats_url: str) -> None:
        await stream.add_foreign()
        async with running("events", "--follow", NATS_URL=nats_url) as command:
            await command.said("first")
            await stream.add_event("last")
            await command.said("last")
            assert "Traceback" not in command.output


class TestIsEvent:
    @pytest.mark.parametrize(
        ("position", "number"),
        [("1", 1), ("9" * 19, int("9" * 19)), ("", None), ("-1", None), ("9" * 20, None)]
        + [(text, None) for text in ("1.0", "\u0663", "\u00b2", " 1", "x")],
    )
    def test_a_position_is_a_number_that_can_be_one(
        self, position: str, number: int | None
    ) -> None:
        headers = {"ce-id": "x", "Fleet-Position": position}
        assert position_of(headers) == number
        assert is_event(headers) == (number is not None)

    def test_without_an_id_it_is_none(self) -> None:
        assert not is_event({"Fleet-Position": "1"})
        assert not is_event(None)
