"""Passwords hashed at full speed beside agents that live: how many heartbeats are late."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from typing import Any

import nats
from rich.console import Console

from benchmarks.contenders import ACCOUNTS, FLEETBUS, started
from benchmarks.heartbeats import INTERVAL, WARMUP, measure
from benchmarks.pulse import Beats, Spec
from benchmarks.servers import running
from bus.kit.aio import end

SIGNING = replace(FLEETBUS, module="benchmarks.signing")

AFTER_REFUSAL = 0.05
"""Seconds until a caller that was refused for the load tries again: far less than it is told."""


async def run(
    console: Console, agents: int, callers: int, seconds: float, *, durable: bool
) -> dict[str, Any]:
    """Heartbeats to one handler process, without sign-ins and with so many callers at once."""
    found: dict[str, Any] = {"agents": agents, "callers": callers, "seconds": seconds}
    for name, busy in (("alone", 0), ("beside", callers)):
        beats, answers, spent = await _one(agents, busy, seconds, durable=durable)
        console.print(
            f"{agents:,} agents, {busy} who sign in: {beats.late} of {beats.sent:,} heartbeats "
            f"late; p50 {beats.p50_ms:.1f} ms, p99 {beats.p99_ms:.1f} ms, at worst "
            f"{beats.worst_ms:.0f} ms; {answers.get('200', 0) / seconds:,.0f} sign-ins a second, "
            f"{answers.get('429', 0) / seconds:,.0f} refused; handler process "
            f"{spent['handlers']:.0%} of a core"
        )
        found[name] = {"answers": dict(answers), "cpu_shares": spent, **asdict(beats)}
    return {"durable": durable, **found}


async def _one(
    agents: int, callers: int, seconds: float, *, durable: bool
) -> tuple[Beats, Counter[str], dict[str, float]]:
    async with (
        running(ACCOUNTS, durable=durable) as servers,
        started(SIGNING, servers, FLEETBUS_RELAY="true") as service,
        _signing_in(service.url, callers) as answers,
    ):
        spec = Spec(service.url, agents, INTERVAL, seconds, WARMUP, keys=False)
        beats, spent = await measure(servers, service, spec)
        return beats, answers, spent


@asynccontextmanager
async def _signing_in(url: str, callers: int) -> AsyncIterator[Counter[str]]:
    """So many callers, each with one sign-in at a time; counts the answers by their status."""
    client = await nats.connect(url)
    answers: Counter[str] = Counter()

    async def sign_in(number: int) -> None:
        body = json.dumps({"password": f"password {number}"}).encode()
        while True:
            reply = await client.request("db.signins.open", body, timeout=30)
            status = (reply.headers or {}).get("Nats-Service-Error-Code", "200")
            answers[status] += 1
            if status != "200":
                await asyncio.sleep(AFTER_REFUSAL)

    tasks = [asyncio.create_task(sign_in(number)) for number in range(callers)]
    try:
        yield answers
    finally:
        await end(*tasks)
        await client.close()
