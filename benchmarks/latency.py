"""From commit to event: when subscribers hear of what was recorded."""

from __future__ import annotations

import time
from array import array
from datetime import datetime
from typing import Any, Self

import nats
from nats.aio.msg import Msg
from rich.console import Console

from benchmarks.contenders import ACCOUNTS, FLEETBUS, Running, started
from benchmarks.runner import Runner, Window
from benchmarks.servers import running
from benchmarks.workloads import WORKLOADS

IN_FLIGHT = 64
SHARE = 0.5
"""The share of the highest throughput at which latencies are taken."""


async def run(console: Console, seconds: float, *, durable: bool) -> dict[str, Any]:
    """Find the highest load with the relay in the same process, then listen at half of it."""
    async with running(ACCOUNTS, durable=durable) as servers:
        runner = Runner(servers, Window(seconds))
        async with started(FLEETBUS, servers, FLEETBUS_RELAY="true") as service:
            highest = await Runner(servers, Window(min(seconds, 4.0))).measure(
                service, WORKLOADS["complete"], IN_FLIGHT
            )
            async with _Listener(service) as listener:
                half = await runner.measure(
                    service, WORKLOADS["complete"], IN_FLIGHT, rate=highest.throughput * SHARE
                )
    delays = sorted(listener.delays)
    if not delays:
        raise RuntimeError("no event came")
    p50, p99 = delays[len(delays) // 2], delays[len(delays) * 99 // 100]
    console.print(
        f"recorded → event at {half.throughput:,.0f} commands per second "
        f"(half of {highest.throughput:,.0f}): p50 {p50:.1f} ms, p99 {p99:.1f} ms, "
        f"{len(delays):,} events; reply p50 {half.p50_ms:.1f} ms, p99 {half.p99_ms:.1f} ms"
    )
    return {
        "durable": durable,
        "highest_per_second": highest.throughput,
        "per_second": half.throughput,
        "events": len(delays),
        "recorded_to_event_p50_ms": p50,
        "recorded_to_event_p99_ms": p99,
        "reply_p50_ms": half.p50_ms,
        "reply_p99_ms": half.p99_ms,
    }


class _Listener:
    """Takes the time between ``ce-time``, taken just before COMMIT, and the event's arrival."""

    def __init__(self, service: Running) -> None:
        self.delays = array("d")
        self._service = service

    async def __aenter__(self) -> Self:
        self._client = await nats.connect(self._service.url)
        await self._client.subscribe("events.task.completed.*", cb=self._arrived)
        await self._client.flush()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.drain()

    async def _arrived(self, message: Msg) -> None:
        recorded = datetime.fromisoformat((message.headers or {})["ce-time"])
        self.delays.append((time.time() - recorded.timestamp()) * 1e3)
