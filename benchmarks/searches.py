"""What everybody else notices of searches over all tasks: gets by id, alone and beside them."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import nats
from nats.aio.client import Client
from rich.console import Console

from benchmarks.contenders import ACCOUNTS, FLEETBUS, started
from benchmarks.servers import Servers, running

INTERVAL = 0.01
"""Seconds between two gets: they are rare, so that what they wait for are the searches."""

RARE = '{"search": "no task has this"}'

_FILL = """
INSERT INTO planning.tasks (id, name, description, status)
SELECT uuidv7(), 'task ' || n, repeat('what is to be done, and why it is ', 6), 'pending'
FROM generate_series(1, $1) AS n
"""


async def run(
    console: Console, tasks: int, in_flight: int, seconds: float, *, durable: bool
) -> dict[str, Any]:
    """The times of gets with no search, and with so many in flight."""
    async with running(ACCOUNTS, durable=durable) as servers, started(FLEETBUS, servers) as service:
        await servers.db.execute(_FILL, tasks, timeout=None)
        await servers.db.execute("VACUUM ANALYZE planning.tasks")
        client = await nats.connect(service.url)
        try:
            found = await _measure(servers, client, in_flight, seconds)
        finally:
            await client.close()
    for name, measured in found.items():
        console.print(f"{tasks:,} tasks, {name}: {measured}")
    return {"durable": durable, "tasks": tasks, "in_flight": in_flight, **found}


async def _measure(
    servers: Servers, client: Client, in_flight: int, seconds: float
) -> dict[str, dict[str, Any]]:
    ids = await servers.db.fetch("SELECT id FROM planning.tasks LIMIT 1000")
    texts = [str(row["id"]) for row in ids]
    await _gets(client, texts, 1.0)
    alone = await _gets(client, texts, seconds)
    async with _searching(client, in_flight) as answers:
        beside = await _gets(client, texts, seconds)
    answered = {"searches": dict(answers)}
    return {"alone": alone, f"beside {in_flight} searches": beside | answered}


async def _gets(client: Client, ids: list[str], seconds: float) -> dict[str, Any]:
    """One get after the other, at a pace."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        body = json.dumps({"id": ids[len(times) % len(ids)]}).encode()
        began = time.perf_counter()
        answer = await client.request("db.tasks.get", body, timeout=60)
        times.append(1000 * (time.perf_counter() - began))
        assert not answer.headers, answer.data
        await asyncio.sleep(INTERVAL)
    times.sort()
    p50, p99 = times[len(times) // 2], times[int(len(times) * 0.99)]
    return {"gets": len(times), "p50_ms": round(p50, 2), "p99_ms": round(p99, 2)}


@asynccontextmanager
async def _searching(client: Client, in_flight: int) -> AsyncIterator[Counter[str]]:
    """Callers that search for what no task has, again and again; counts what they are told."""
    answers: Counter[str] = Counter()

    async def search() -> None:
        while True:
            answer = await client.request("db.tasks.list", RARE.encode(), timeout=120)
            answers[(answer.headers or {}).get("Nats-Service-Error-Code", "200")] += 1

    callers = [asyncio.create_task(search()) for _ in range(in_flight)]
    await asyncio.sleep(1)
    try:
        yield answers
    finally:
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
