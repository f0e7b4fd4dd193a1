"""Messages that somebody else puts into the stream, over a socket of its own: whatever bytes."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError

from fleetbus.server.relay.reading import Found, found_between

BLOCKS = (
    b"",
    b"NATS/1.0 \xff\xff\r\n\r\n",
    b"NATS/1.0 503\r\n\r\n",
    b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 1\r\n\r\n",
    b"NATS/1.0\r\nno colon\r\n\r\n",
    b"NATS/1.0\r\n\xc3\x28: \xff\r\n\r\n",
    b"NATS/1.0\r\nA: 1\r\nA: 2\r\n\r\n",
    b"NATS/1.0\r\nFleet-Position: 99999999999999999999999\r\n\r\n",
    b"NATS/1.0\r\nFleet-Position: 999999\r\nNats-Msg-Id: x\r\nce-id: x\r\n\r\n",
    b"NATS/1.0\r\n: \r\n\r\n",
    b"NATS/1.0\r\n\r\n\r\n",
)
"""Header blocks that no client of ours writes."""


class Stranger:
    """Publishes without a client library: it does not wait for anything, and hides nothing."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def publish(self, subject: str, block: bytes, body: bytes = b"{}") -> None:
        """Publish a message with this header block."""
        size = len(block) + len(body)
        head = f"HPUB {subject} {len(block)} {size}" if block else f"PUB {subject} {size}"
        self._writer.write(head.encode() + b"\r\n" + block + body + b"\r\n")
        await self._writer.drain()

    async def arrived(self) -> None:
        """Wait until the server has all of it."""
        self._writer.write(b"PING\r\n")
        while await self._reader.readline() != b"PONG\r\n":
            pass


@asynccontextmanager
async def stranger(nats_url: str) -> AsyncIterator[Stranger]:
    """Somebody who speaks the protocol, and nothing more."""
    url = urlsplit(nats_url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    await reader.readline()
    user = f'"user":"{url.username}","pass":"{url.password}",' if url.username else ""
    writer.write(f'CONNECT {{{user}"verbose":false,"headers":true}}\r\n'.encode())
    try:
        yield Stranger(reader, writer)
    finally:
        writer.close()
        await writer.wait_closed()


def block(headers: Mapping[str, str]) -> bytes:
    """Headers as a client writes them."""
    lines = (f"{name}: {value}\r\n" for name, value in headers.items())
    return b"NATS/1.0\r\n" + "".join(lines).encode() + b"\r\n"


def own_headers(message: Msg) -> dict[str, str]:
    """What an event says, without what fenced it."""
    fences = ("Nats-Expected", "Nats-Batch")
    return {k: v for k, v in (message.headers or {}).items() if not k.startswith(fences)}


async def held(client: Client) -> list[Found]:
    """All that the stream holds, whatever is in it."""
    try:
        info = await client.jetstream().stream_info("EVENTS")
    except NotFoundError:
        return []
    first, last = max(1, info.state.first_seq), info.state.last_seq
    return [m async for page in found_between(client, "EVENTS", first, last) for m in page]


def told(found: list[Found]) -> list[str]:
    """Of which entities events tell, in the stream's order."""
    return [(message.headers or {})["ce-subject"] for message in found]


async def tells(client: Client, entities: list[str]) -> bool:
    """Whether the stream holds exactly one event on each of these, in this order."""
    found = await held(client)
    return [(message.headers or {}).get("ce-subject") for message in found] == entities
