"""Relays that run for a test, sessions that record events, and what the stream then holds."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias
from uuid import uuid4

import asyncpg
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError
from sqlalchemy.ext.asyncio import create_async_engine

from fleetbus.server.relay.relay import Relay, RelaySettings

Session: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

INSERT = "INSERT INTO bus.outbox (event_id, type, entity_id, data) VALUES ($1, $2, $3, $4)"

QUICK = RelaySettings(poll_interval=0.1)
RELAY_SESSION = """
    SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


async def record(session: Session, *entities: str) -> None:
    rows = [(uuid4(), "task.completed", entity, f'{{"id": "{entity}"}}') for entity in entities]
    await session.executemany(INSERT, rows)


async def record_many(session: Session, count: int) -> None:
    await session.execute(
        """
        INSERT INTO bus.outbox (event_id, type, entity_id, data)
        SELECT gen_random_uuid(), 'task.completed', 'e' || n, json_build_object('n', n)
        FROM generate_series(1, $1) AS n ORDER BY n
        """,
        count,
    )


@asynccontextmanager
async def session_of(database_url: str) -> AsyncIterator[Session]:
    session = await asyncpg.connect(database_url)
    try:
        yield session
    finally:
        session.terminate()


@asynccontextmanager
async def client_of(nats_url: str) -> AsyncIterator[Client]:
    async def ignore(_: Exception) -> None: ...

    client = await nats.connect(
        nats_url, max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=ignore
    )
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def running_relay(
    database_url: str, client: Client, settings: RelaySettings | None = None
) -> AsyncIterator[Relay]:
    url = database_url.replace("postgresql://", "postgresql+asyncpg://")
    engine = create_async_engine(url)
    relay = Relay(engine, client, settings)
    task = asyncio.create_task(relay.run())
    try:
        yield relay
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=10)
        assert task.done(), "the relay outlives its cancellation"
        await engine.dispose()


async def eventually(holds: Callable[[], Awaitable[bool]], *, within: float = 20) -> None:
    async with asyncio.timeout(within):
        while not await holds():  # noqa: ASYNC110 - it waits for other processes
            await asyncio.sleep(0.02)


async def stream_length(client: Client, stream: str = "EVENTS") -> int:
    try:
        info = await client.jetstream().stream_info(stream)
    except NotFoundError:
        return 0
    return info.state.messages


async def messages(client: Client, count: int) -> list[Msg]:
    """What the stream holds, once it holds so much; fails if it holds more."""

    async def arrived() -> bool:
        return await stream_length(client) >= count

    await eventually(arrived)
    subscription = await client.jetstream().subscribe("events.>", ordered_consumer=True)
    found = [await subscription.next_msg(timeout=5) for _ in range(count)]
    await subscription.unsubscribe()
    assert await stream_length(client) == count
    return found


async def entities(client: Client, count: int) -> list[str]:
    return [(message.headers or {})["ce-subject"] for message in await messages(client, count)]


async def holes(session: Session) -> str:
    return str(await session.fetchval("SELECT holes FROM bus.relay_state"))


async def no_holes(session: Session) -> None:
    async def none_left() -> bool:
        return await holes(session) == "[]"

    await eventually(none_left)


async def is_active(relay: Relay) -> bool:
    return relay.metrics.active


async def saved(session: Session, sequence: int) -> bool:
    """Whether the relay has noted that it put the stream's event with this sequence there."""
    query = "SELECT stream_sequence FROM bus.relay_state"
    return bool(await session.fetchval(query) == sequence)


async def stream_reaches(client: Client, count: int) -> None:
    async def reached() -> bool:
        return await stream_length(client) >= count

    await eventually(reached)
