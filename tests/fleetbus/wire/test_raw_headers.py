"""Header blocks that no client library writes: each request still gets its one answer."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from fleetbus.server.service import Service

BODY = b"{}"
SUBJECT = b"db.meta.operations"

BLOCKS = {
    "no headers at all": b"NATS/1.0\r\n\r\n",
    "a status": b"NATS/1.0 503\r\n\r\n",
    "a status with words": b"NATS/1.0 100 Idle Heartbeat\r\n\r\n",
    "no colon": b"NATS/1.0\r\nnonsense\r\n\r\n",
    "no name": b"NATS/1.0\r\n: value\r\n\r\n",
    "no value": b"NATS/1.0\r\nNats-Msg-Id:\r\n\r\n",
    "a blank in the name": b"NATS/1.0\r\nNats Msg Id: x\r\n\r\n",
    "invalid UTF-8": b"NATS/1.0\r\nNats-Msg-Id: \xff\xfe\r\n\r\n",
    "invalid UTF-8 in the name": b"NATS/1.0\r\n\xff\xfe: x\r\n\r\n",
    "the same twice": b"NATS/1.0\r\nFleet-Deadline: 99999999999999\r\nFleet-Deadline: 1\r\n\r\n",
    "a fold": b"NATS/1.0\r\ntraceparent: a\r\n b\r\n\r\n",
    "bare line feeds": b"NATS/1.0\nNats-Msg-Id: x\n\n",
    "a zero byte": b"NATS/1.0\r\nNats-Msg-Id: a\x00b\r\n\r\n",
    "many": b"NATS/1.0\r\n" + b"".join(b"H%d: v\r\n" % n for n in range(5_000)) + b"\r\n",
    "a long one": b"NATS/1.0\r\nX: " + b"v" * 200_000 + b"\r\n\r\n",
}


class Session:
    """A NATS connection without a client library."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def hello(self, user: str | None, password: str | None) -> None:
        options: dict[str, Any] = {"verbose": False, "headers": True, "no_responders": True}
        if user:
            options |= {"user": user, "pass": password}
        self._writer.write(
            b"CONNECT " + json.dumps(options).encode() + b"\r\nSUB _INBOX.back 1\r\n"
        )

    async def ask(self, subject: bytes, block: bytes, body: bytes) -> bytes:
        """Send a request with this header block; returns the payload of the answer."""
        size = len(block)
        head = b"HPUB %s _INBOX.back %d %d\r\n" % (subject, size, size + len(body))
        self._writer.write(head + block + body + b"\r\n")
        async with asyncio.timeout(5):
            while True:
                line = await self._reader.readline()
                if line.startswith(b"PING"):
                    self._writer.write(b"PONG\r\n")
                if line.startswith(b"-ERR"):
                    return line
                if line.startswith((b"MSG", b"HMSG")):
                    return await self._payload(line)

    async def _payload(self, line: bytes) -> bytes:
        words = line.split()
        payload = (await self._reader.readexactly(int(words[-1]) + 2))[:-2]
        return payload[int(words[-2]) :] if words[0] == b"HMSG" else payload


@pytest.fixture
async def session(service: Service, nats_url: str) -> AsyncIterator[Session]:
    assert service.client.is_connected
    url = make_url(nats_url)
    reader, writer = await asyncio.open_connection(url.host, url.port, limit=4 * 1024 * 1024)
    session = Session(reader, writer)
    await session.hello(url.username, None if url.password is None else str(url.password))
    yield session
    writer.transport.abort()


class TestRawHeaders:
    @pytest.mark.parametrize("name", BLOCKS)
    async def test_it_is_answered(self, session: Session, name: str) -> None:
        answer = json.loads(await session.ask(SUBJECT, BLOCKS[name], BODY))

        assert answer.get("items") or answer["status"] in {400, 504}

    async def test_the_next_request_is_answered_as_if_nothing_had_been(
        self, session: Session
    ) -> None:
        for block in BLOCKS.values():
            await session.ask(SUBJECT, block, BODY)

        answer = json.loads(await session.ask(SUBJECT, b"NATS/1.0\r\nA: b\r\n\r\n", BODY))

        assert answer["items"]

    @pytest.mark.parametrize("key", [b"\xff\xfe", b"\x1ckey", "\u00a0key".encode()])
    async def test_a_key_that_is_no_text_does_not_become_another_key(
        self, session: Session, key: bytes
    ) -> None:
        """A command whose key cannot be read is refused, rather than run without one."""
        body = b'{"name": "x"}'
        block = b"NATS/1.0\r\nNats-Msg-Id: " + key + b"\r\n\r\n"

        answer = json.loads(await session.ask(b"db.tasks.create", block, body))

        assert (answer["status"], answer["errors"][0]["field"]) == (400, "Nats-Msg-Id")
