"""Headers and answers in our own reading and writing of the protocol: the same as nats-py's."""

import asyncio
import json

import nats
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.aio.msg import Msg

from bus.kit.header_block import parse_header_lines
from bus.kit.nats_io import flush
from bus.running.calls import Answer
from fleetbus.server.wire.replies import TOGETHER, Responder

PIECES = st.one_of(
    st.sampled_from(
        [b":", b": ", b"\r", b"\n", b"\r\n", b"Nats-Msg-Id", b"a", b"1", b"\xff", b"\x00"]
    ),
    # What Python takes for a blank in text and not in bytes is part of a value, and of no name.
    st.sampled_from([chr(n).encode() for n in range(0x3001) if chr(n).isspace()]),
)


class TestHeaderLines:
    @given(st.lists(PIECES, max_size=30).map(b"".join))
    @example(b"Nats-Msg-Id: k\r\nFleet-Deadline:1\r\n\r\n")
    @example(b": no name\r\nno colon\r\na b: blank\r\nx: 1\r\nx: 2\r\n")
    def test_are_understood_as_nats_py_understands_them(self, raw: bytes) -> None:
        assert parse_header_lines(raw) == Client._parse_header_lines(raw)

    async def test_are_read_with_what_is_put_in_its_place(self, nats_url: str) -> None:
        client = await nats.connect(nats_url)
        client._parse_header_lines = lambda raw: {"seen": raw.decode()}  # type: ignore[method-assign]  # as the wire does
        heard = asyncio.Queue[Msg]()
        await client.subscribe("a", cb=heard.put)

        await client.publish("a", b"", headers={"Name": "value"})

        async with asyncio.timeout(10):
            message = await heard.get()
        assert message.headers == {"seen": "Name: value\r\n\r\n"}
        await client.close()


class TestAnswers:
    @pytest.fixture
    async def arrivals(self, nats_url: str) -> tuple[Client, asyncio.Queue[Msg]]:
        client = await nats.connect(nats_url)
        heard = asyncio.Queue[Msg]()
        await client.subscribe("back.>", cb=heard.put)
        return client, heard

    async def test_arrive_whole_and_in_order(
        self, nats_url: str, arrivals: tuple[Client, asyncio.Queue[Msg]]
    ) -> None:
        listening, heard = arrivals
        await flush(listening)
        client = await nats.connect(nats_url)
        responder = Responder(client)
        long = "é".encode() * TOGETHER
        answers = [
            Answer(200, b""),
            Answer(200, b'{"a":1}', position=7, replayed=True),
            Answer(200, long, position=8),
            Answer(409, b"{}", "conflict", "line\r\nNats-Forged: é"),
            Answer(200, long),
        ]

        for number, answer in enumerate(answers):
            responder.respond("db.x.y", f"back.{number}", answer)
        async with asyncio.timeout(10):
            arrived = [await heard.get() for _ in answers]

        assert [message.subject for message in arrived] == [f"back.{n}" for n in range(5)]
        assert [message.data for message in arrived] == [answer.body for answer in answers]
        assert [message.headers for message in arrived] == [
            None,
            {"Fleet-Position": "7", "Fleet-Replayed": "true"},
            {"Fleet-Position": "8"},
            {"Nats-Service-Error-Code": "409", "Nats-Service-Error": "line Nats-Forged: ?"},
            None,
        ]
        await responder.close()
        await client.close()
        await listening.close()

    async def test_instead_of_one_that_is_too_large_that_is_told_and_no_other_is_harmed(
        self,
        nats_url: str,
        arrivals: tuple[Client, asyncio.Queue[Msg]],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        listening, heard = arrivals
        await flush(listening)
        client = await nats.connect(nats_url)
        responder = Responder(client)

        responder.respond("db.x.y", "back.large", Answer(200, b"x" * (client.max_payload + 1)))
        responder.respond("db.x.y", "back.small", Answer(200, b"{}"))

        async with asyncio.timeout(10):
            large, small = await heard.get(), await heard.get()
        assert (large.subject, small.subject) == ("back.large", "back.small")
        assert (large.headers or {})["Nats-Service-Error-Code"] == "413"
        assert json.loads(large.data)["type"] == "reply_too_large"
        assert "to 'back.large' is too large" in caplog.text
        await responder.close()
        await client.close()
        await listening.close()
