"""What every peer needs to be a process: uvloop, signals, its place on the bus, its connections."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import asyncpg
import nats
import uvloop
from nats.aio.client import Client
from nats.aio.msg import Msg

NATS_URL = os.environ.get("NATS_URL", "")
DATABASE_URL = os.environ.get("DATABASE_URL", "")
PORT = int(os.environ.get("PORT", "0"))
POOL = int(os.environ.get("POOL", "16"))
QUEUE = "fleetbus"


class Refused(Exception):
    """The request cannot be carried out: a status, and why."""


def serve(service: Callable[[], AbstractAsyncContextManager[None]]) -> None:
    """Run a service until a signal."""

    async def main() -> None:
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        async with service():
            print("ready", flush=True)
            await stopped.wait()

    uvloop.run(main())


@asynccontextmanager
async def task_per_message(
    subjects: Iterable[str], answer: Callable[[Client, Msg], Awaitable[None]]
) -> AsyncIterator[None]:
    """Subscriptions whose messages are each answered in a task of its own."""
    tasks: set[asyncio.Future[None]] = set()

    async def spawn(message: Msg) -> None:
        task = asyncio.ensure_future(answer(client, message))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    client = await nats.connect(NATS_URL)
    for subject in subjects:
        await client.subscribe(subject, queue=QUEUE, cb=spawn)
    await client.flush()
    yield
    await client.drain()
    await asyncio.gather(*tasks)


def connections() -> Any:
    """A pool; its users leave nothing behind on a connection, so a reset after each use (which
    would cost a round trip) is left out."""

    async def no_reset(_: Any) -> None:
        pass

    return asyncpg.create_pool(DATABASE_URL, min_size=POOL, max_size=POOL, reset=no_reset)
