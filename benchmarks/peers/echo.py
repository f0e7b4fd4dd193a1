"""The floor of the bus: nats-py answers every request at once, with as many bytes as a task has."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats
from nats.aio.msg import Msg

from benchmarks.peers._serving import NATS_URL, QUEUE, serve

REPLY = b'{"padding":"%b"}' % (b"." * 780)


@asynccontextmanager
async def service() -> AsyncIterator[None]:
    async def answer(message: Msg) -> None:
        await client.publish(message.reply, REPLY)

    client = await nats.connect(NATS_URL)
    await client.subscribe("db.>", queue=QUEUE, cb=answer)
    await client.flush()
    yield
    await client.drain()


if __name__ == "__main__":
    serve(service)
