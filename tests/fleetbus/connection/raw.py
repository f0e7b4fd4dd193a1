"""NATS without a client library: whatever bytes a test wants to send, byte for byte."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from hypothesis import strategies as st

LIMIT = 8 * 1024 * 1024


@dataclass(frozen=True)
class Arrived:
    """A message as it came: what stands in its control line, its header block and its body."""

    subject: bytes
    block: bytes
    body: bytes

    @property
    def status(self) -> int:
        for line in self.block.split(b"\r\n"):
            if line.startswith(b"Nats-Service-Error-Code: "):
                return int(line.split()[1])
        return 200


class RawSession:
    """A connection that the test speaks over by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._number = 0

    async def hello(self, user: str | None, password: str | None) -> None:
        options: dict[str, Any] = {"verbose": False, "headers": True, "no_responders": False}
        if user:
            options |= {"user": user, "pass": password}
        self.write(b"CONNECT " + json.dumps(options).encode() + b"\r\n")

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    def send(
        self, subject: bytes, body: bytes = b"", *, reply: bytes = b"", block: bytes | None = None
    ) -> None:
        names = subject + (b" " + reply if reply else b"")
        if block is None:
            self.write(b"PUB %b %d\r\n%b\r\n" % (names, len(body), body))
            return
        sizes = (len(block), len(block) + len(body))
        self.write(b"HPUB %b %d %d\r\n%b%b\r\n" % (names, *sizes, block, body))

    def subscribe(self, subject: bytes) -> None:
        self._number += 1
        self.write(b"SUB %b %d\r\n" % (subject, self._number))

    async def settled(self) -> list[Arrived]:
        """Wait until the server has taken all that was sent; returns what arrived meanwhile."""
        self.write(b"PING\r\n")
        arrived = []
        async with asyncio.timeout(10):
            while (line := await self._line()) != b"PONG":
                if line.startswith((b"MSG", b"HMSG")):
                    arrived.append(await self._message(line))
        return arrived

    async def arrival(self, within: float = 10) -> Arrived:
        """The next message."""
        async with asyncio.timeout(within):
            while not (line := await self._line()).startswith((b"MSG", b"HMSG")):
                pass
            return await self._message(line)

    async def _line(self) -> bytes:
        line = (await self._reader.readline()).removesuffix(b"\r\n")
        if line == b"PING":
            self.write(b"PONG\r\n")
        assert not line.startswith(b"-ERR"), line
        assert line or not self._reader.at_eof(), "the server has ended the connection"
        return line

    async def _message(self, line: bytes) -> Arrived:
        words = line.split(b" ")
        payload = (await self._reader.readexactly(int(words[-1]) + 2))[:-2]
        size = int(words[-2]) if words[0] == b"HMSG" else 0
        return Arrived(words[1], payload[:size], payload[size:])


@asynccontextmanager
async def raw_session(url: str) -> AsyncIterator[RawSession]:
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port, limit=LIMIT)
    session = RawSession(reader, writer)
    await session.hello(where.username, where.password)
    try:
        await session.settled()
        yield session
    finally:
        writer.transport.abort()


_SEPARATORS = b"\x00\t\n\r .*>"

TOKENS = st.one_of(
    st.sampled_from([b"a", b"\xff", b"\x0b", b"\x0c", b"\x7f", b"\x1b[31m", "é".encode(), b"$JS"]),
    st.binary(min_size=1, max_size=8).map(lambda b: bytes(c for c in b if c not in _SEPARATORS)),
).map(lambda token: token or b"t")
"""What the server takes for a part of a subject."""

BLOCKS = st.one_of(
    st.none(),
    st.sampled_from(
        [
            b"NATS/1.0 \xff\xff\r\n\r\n",
            b"NATS/1.0 503\r\n\r\n",
            b"NATS/1.0 100 FlowControl Request\r\n\r\n",
            b"NATS/1.0 100 Idle Heartbeat\r\nNats-Consumer-Stalled: \xff\r\n\r\n",
            b"NATS/1.0 404 No Messages\r\n\r\n",
            b"NATS/1.0 409 \xfe\r\nA: b\r\n\r\n",
            b"NATS/1.0 \xc2\xb2\xc2\xb2\xc2\xb2\r\n\r\n",
            b"NATS/1.0\r\nStatus: 404\r\n\r\n",
            b"NATS/1.0\r\nno colon\r\n\r\n",
            b"NATS/1.0\r\n",
            b"NATS/1.0",
            b"N",
            b"\r\n",
            b"\x00" * 12,
            b"NATS/1.0\r\n" + b"H: v\r\n" * 2000 + b"\r\n",
            b"NATS/1.0\r\nX: " + b"\xff" * 50_000 + b"\r\n\r\n",
        ]
    ),
    st.binary(min_size=1, max_size=40),
    st.binary(max_size=40).map(lambda rest: b"NATS/1.0" + rest),
    st.binary(max_size=40).map(lambda rest: b"NATS/1.0 " + rest),
    st.binary(max_size=40).map(lambda rest: b"NATS/1.0\r\n" + rest + b"\r\n\r\n"),
)
"""What somebody may put where headers belong."""

BODIES = st.one_of(st.sampled_from([b"", b"{}", b"\xff", b'{"cursor": 1e999, "holes": []}']),
                   st.binary(max_size=30))  # fmt: skip
