"""Requests as any NATS client sends them, and what came back."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.kit.ids import uuid7
from bus.kit.nats_io import flush

RUN, READ = "db.probes.run", "db.probes.read"
NOTE, CREATE = "db.tasks.probe_note", "db.projects.probe_create"


@dataclass(frozen=True)
class Got:
    """A reply, taken apart."""

    data: bytes
    headers: dict[str, str]

    @property
    def status(self) -> int:
        return int(self.headers.get("Nats-Service-Error-Code", 200))

    @property
    def body(self) -> dict[str, Any]:
        body = json.loads(self.data)
        assert isinstance(body, dict), "a reply is always a JSON object"
        return body

    @property
    def type(self) -> str:
        return str(self.body.get("type"))

    @property
    def replayed(self) -> bool:
        return self.headers.get("Fleet-Replayed") == "true"

    @property
    def position(self) -> str | None:
        return self.headers.get("Fleet-Position")


def request(
    body: Any = b"",
    *,
    key: str | None = None,
    deadline: float | None = None,
    dry_run: bool = False,
    headers: dict[str, str] | None = None,
) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a request; ``deadline`` is in seconds from now."""
    given = dict(headers or {})
    if key is not None:
        given["Nats-Msg-Id"] = key
    if deadline is not None:
        given["Fleet-Deadline"] = str(int((time.time() + deadline) * 1000))
    if dry_run:
        given["Fleet-Dry-Run"] = "true"
    return body if isinstance(body, bytes) else json.dumps(body).encode(), given


class Asker:
    """A plain NATS client that knows how requests look."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def __call__(
        self, subject: str, body: Any = b"", *, within: float = 10, **how: Any
    ) -> Got:
        data, headers = request(body, **how)
        message = await self.client.request(subject, data, timeout=within, headers=headers or None)
        return got(message)

    async def send(self, subject: str, body: Any, **how: Any) -> None:
        """Send without a reply subject."""
        data, headers = request(body, **how)
        await self.client.publish(subject, data, headers=headers or None)
        await flush(self.client)


PROBLEM = {"type", "title", "status", "detail", "retryable"}


def assert_problem(got: Got, status: int, kind: str, *, retryable: bool = False) -> None:
    assert (got.status, got.type) == (status, kind), got
    assert got.body.keys() >= PROBLEM
    assert (got.body["status"], got.body["retryable"]) == (status, retryable)
    line = got.headers["Nats-Service-Error"]
    assert 0 < len(line) <= 200
    assert line.isprintable()


def got(message: Msg) -> Got:
    return Got(message.data, dict(message.headers or {}))


@asynccontextmanager
async def asking(nats_url: str) -> AsyncIterator[Asker]:
    async def ignore(_: Exception) -> None: ...

    client = await nats.connect(
        nats_url, max_reconnect_attempts=-1, reconnect_time_wait=0.05, error_cb=ignore
    )
    try:
        yield Asker(client)
    finally:
        await client.close()


async def eventually(
    true: Callable[[], Awaitable[Any] | Any], *, within: float = 10, poll: float = 0.01
) -> Any:
    """Wait until a condition holds; returns what it returned."""
    async with asyncio.timeout(within):
        while True:
            value = true()
            if isinstance(value, Awaitable):
                value = await value
            if value:
                return value
            await asyncio.sleep(poll)


async def add_tasks(db: AsyncConnection, count: int = 1, **columns: Any) -> list[UUID]:
    """Tasks in progress, attempt 1, each with a new id."""
    values = {"name": "task", "status": "in_progress", "attempt": 1} | columns
    names = ", ".join(values)
    places = ", ".join(f":{name}" for name in values)
    ids = [uuid7() for _ in range(count)]
    await db.execute(
        text(f"INSERT INTO planning.tasks (id, {names}) VALUES (:id, {places})"),
        [{"id": id_, **values} for id_ in ids],
    )
    return ids


async def count_of(db: AsyncConnection, table: str) -> int:
    return int((await db.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one())


async def column_of(db: AsyncConnection, column: str, id_: UUID) -> Any:
    query = text(f"SELECT {column} FROM planning.tasks WHERE id = :id")
    return (await db.execute(query, {"id": id_})).scalar_one()


@asynccontextmanager
async def locked(db: AsyncConnection, *ids: UUID) -> AsyncIterator[None]:
    """Hold the row locks of tasks inside the block."""
    await db.execute(text("BEGIN"))
    try:
        query = text("SELECT id FROM planning.tasks WHERE id = ANY(:ids) FOR UPDATE")
        await db.execute(query, {"ids": list(ids)})
        yield
    finally:
        await db.execute(text("ROLLBACK"))


async def waiting_for_locks(db: AsyncConnection) -> int:
    """How many sessions on this database wait for a lock, seen also from inside a transaction."""
    await db.execute(text("SELECT pg_stat_clear_snapshot()"))
    query = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return int((await db.execute(text(query))).scalar_one())


async def open_transactions(db: AsyncConnection) -> int:
    """Sessions of services on this database that sit in a transaction and do nothing."""
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name = 'fleetbus' AND state LIKE 'idle in transaction%'"
    )
    return int((await db.execute(text(query))).scalar_one())
