"""What it costs everybody that many ask for work and find none."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import nats
from nats.aio.client import Client
from rich.console import Console

from benchmarks.contenders import ACCOUNTS, FLEETBUS, Running, started
from benchmarks.servers import Servers, running
from benchmarks.workloads import WORKLOADS

CLIENTS = 8
WARMUP = 3.0
PAUSE = 0.01
"""Seconds between two requests of the one who is not idle."""

_WAITING = "UPDATE planning.tasks SET held = true WHERE status = 'pending'"
_CLAIM = json.dumps({"agent_id": "idle"}).encode()


@dataclass(frozen=True)
class Idle:
    """What so many idle claimers cost, and how long a get by id took beside them."""

    claimers: int
    claims_per_second: float
    handlers: float
    postgres: float
    get_p50_ms: float
    get_p99_ms: float


async def run(
    console: Console, claimers: int, tasks: int, every: float, seconds: float, *, durable: bool
) -> dict[str, Any]:
    """One handler process, tasks that all wait, and nobody or many who ask for work."""
    async with running(ACCOUNTS, durable=durable) as servers:
        prefix = await servers.prepare(WORKLOADS["get"], 1_000, 2 * tasks)
        await servers.db.execute(_WAITING, timeout=600)
        await servers.db.execute("VACUUM (ANALYZE) planning.tasks", timeout=600)
        async with started(FLEETBUS, servers) as service:
            found = [
                await _measure(servers, service, number, prefix, every, seconds)
                for number in (0, claimers)
            ]
    for each in found:
        console.print(
            f"{each.claimers} idle claimers, each every {every} s, {tasks:,} tasks that wait: "
            f"{each.claims_per_second:,.0f} claims a second; of one core: handler process "
            f"{each.handlers:.1%}, PostgreSQL {each.postgres:.1%}; a get beside them "
            f"p50 {each.get_p50_ms:.2f} ms, p99 {each.get_p99_ms:.2f} ms"
        )
    measured = [vars(each) for each in found]
    return {"durable": durable, "tasks": tasks, "every": every, "measured": measured}


async def _measure(
    servers: Servers, service: Running, claimers: int, prefix: int, every: float, seconds: float
) -> Idle:
    claims = [0]
    async with _connected(service.url) as clients:
        idle = [
            asyncio.create_task(_claim(clients[n % CLIENTS], every, n / max(1, claimers), claims))
            for n in range(claimers)
        ]
        await asyncio.sleep(WARMUP)
        before, cpu, claimed = await servers.spent(), service.cpu(), claims[0]
        took = await _gets(clients[0], prefix, seconds)
        after, later = await servers.spent(), service.cpu()
        claimed = claims[0] - claimed
        for each in idle:
            each.cancel()
        await asyncio.gather(*idle, return_exceptions=True)
    return Idle(
        claimers,
        claimed / seconds,
        (later - cpu) / seconds,
        (after.postgres_cpu - before.postgres_cpu) / seconds,
        took[len(took) // 2] * 1_000,
        took[len(took) * 99 // 100] * 1_000,
    )


async def _claim(client: Client, every: float, offset: float, claims: list[int]) -> None:
    await asyncio.sleep(every * offset)
    while True:
        reply = await client.request("db.tasks.claim", _CLAIM, timeout=30)
        assert json.loads(reply.data) == {"tasks": []}, reply.data
        claims[0] += 1
        await asyncio.sleep(every)


async def _gets(client: Client, prefix: int, seconds: float) -> list[float]:
    """How long each of some gets took, in seconds, shortest first."""
    body = json.dumps({"id": f"{prefix:08x}-0000-7000-8000-{0:012x}"}).encode()
    took = []
    end = time.monotonic() + seconds
    while (begun := time.monotonic()) < end:
        reply = await client.request("db.tasks.get", body, timeout=30)
        took.append(time.monotonic() - begun)
        assert not (reply.headers or {}).get("Nats-Service-Error-Code"), reply.data
        await asyncio.sleep(PAUSE)
    return sorted(took)


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[list[Client]]:
    clients = [await nats.connect(url) for _ in range(CLIENTS)]
    try:
        yield clients
    finally:
        for client in clients:
            await client.close()
