"""Memory of each process over time, under a steady load."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

from rich.console import Console

from benchmarks.contenders import ACCOUNTS, FLEETBUS, Running, started
from benchmarks.runner import Runner, Window
from benchmarks.servers import running
from benchmarks.workloads import WORKLOADS

IN_FLIGHT = 64
RATE = 1000.0
SAMPLE_EVERY = 5.0

SETTLED = 0.2
"""The first part of the time is for caches and pools to fill."""


async def run(console: Console, minutes: float, processes: int, *, durable: bool) -> dict[str, Any]:
    """The mixed load for so long; relay and sweeper run too."""
    samples: list[tuple[float, list[float]]] = []
    async with running(ACCOUNTS, durable=durable) as servers:
        runner = Runner(servers, Window(minutes * 60))
        async with started(
            FLEETBUS, servers, processes=processes, FLEETBUS_RELAY="true"
        ) as service:
            sampling = asyncio.create_task(_sample(service, samples))
            measured = await runner.measure(service, WORKLOADS["mix"], IN_FLIGHT, rate=RATE)
            sampling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sampling
    settled = samples[int(len(samples) * SETTLED) :]
    per_process = [
        {"settled_mib": column[0], "last_mib": column[-1], "highest_mib": max(column)}
        for column in zip(*(memory for _, memory in settled), strict=True)
    ]
    for number, memory in enumerate(per_process, 1):
        console.print(
            f"process {number}: {memory['settled_mib']:.0f} MiB once settled, "
            f"{memory['last_mib']:.0f} at the end, {memory['highest_mib']:.0f} at most"
        )
    return {
        "durable": durable,
        "minutes": minutes,
        "per_second": measured.throughput,
        "processes": per_process,
        "samples": [[round(at, 1), *(round(m, 1) for m in memory)] for at, memory in samples],
    }


async def _sample(service: Running, samples: list[tuple[float, list[float]]]) -> None:
    began = time.monotonic()
    while True:
        samples.append((time.monotonic() - began, service.memory()))
        await asyncio.sleep(SAMPLE_EVERY)
