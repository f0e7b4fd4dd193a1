"""What it costs that many agents live: heartbeats at their pace, and nobody taken for crashed."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

from rich.console import Console

from benchmarks.contenders import ACCOUNTS, FLEETBUS, ROOT, Running, started
from benchmarks.pulse import Beats, Spec
from benchmarks.servers import Servers, running

INTERVAL = 10
WARMUP = 10.0

_HARMED = """
SELECT coalesce(data->>'cause', type), count(*) FROM bus.outbox
WHERE type IN ('agent.suspected', 'agent.crashed') GROUP BY 1
"""

_LIVING = "SELECT count(*) FROM agents.agents WHERE status = 'idle' AND lease_expires_at > now()"


async def run(
    console: Console, agents: int, seconds: float, *, keys: bool, durable: bool
) -> dict[str, Any]:
    """One handler process with relay, sweeper and detector, and agents that heartbeat to it."""
    async with running(ACCOUNTS, durable=durable) as servers:
        system_url = servers.nats.system_url
        async with started(
            FLEETBUS, servers, FLEETBUS_RELAY="true", FLEETBUS_NATS_SYSTEM_URL=system_url
        ) as service:
            spec = Spec(service.url, agents, INTERVAL, seconds, WARMUP, keys)
            beats, spent = await measure(servers, service, spec)
            harmed = dict(await servers.db.fetch(_HARMED))
            living = int(await servers.db.fetchval(_LIVING))
    console.print(
        f"{agents:,} agents, a heartbeat each {INTERVAL} s: {beats.sent / seconds:,.0f} a second, "
        f"p50 {beats.p50_ms:.1f} ms, p99 {beats.p99_ms:.1f} ms, at worst {beats.worst_ms:.0f} ms; "
        f"of one core: handler process {spent['handlers']:.1%}, "
        f"PostgreSQL {spent['postgres']:.1%}, NATS {spent['nats']:.1%}, load {beats.cpu_share:.1%}"
    )
    console.print(
        f"suspected or crashed: {harmed or 'nobody'}; {living:,} alive at the end; refused: "
        f"{beats.refused or 'nothing'}; {beats.unanswered} unanswered; "
        f"{beats.registered_per_second:,.0f} registered a second"
    )
    return {
        "durable": durable,
        "agents": agents,
        "interval": INTERVAL,
        "seconds": seconds,
        "keys": keys,
        "harmed": harmed,
        "living": living,
        "cpu_shares": spent,
        **asdict(beats),
    }


async def measure(servers: Servers, service: Running, spec: Spec) -> tuple[Beats, dict[str, float]]:
    """What the load counted, and what everybody spent meanwhile, as shares of one core."""
    async with _pulse(spec) as lines:
        assert await anext(lines) == "begin"
        before, cpu = await servers.spent(), service.cpu()
        assert await anext(lines) == "end"
        after, later = await servers.spent(), service.cpu()
        beats = Beats(**json.loads(await anext(lines)))
    spent = {
        "handlers": later - cpu,
        "postgres": after.postgres_cpu - before.postgres_cpu,
        "nats": after.nats_cpu - before.nats_cpu,
    }
    return beats, {name: cost / spec.seconds for name, cost in spent.items()}


@asynccontextmanager
async def _pulse(spec: Spec) -> AsyncIterator[AsyncIterator[str]]:
    """The load process, by the lines that it says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.pulse", json.dumps(asdict(spec))),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdout is not None
    stdout = process.stdout

    async def lines() -> AsyncIterator[str]:
        async for line in stdout:
            yield line.decode().strip()

    try:
        yield lines()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
