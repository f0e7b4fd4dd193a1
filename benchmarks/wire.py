"""What a request costs between nats-py and the database: the same without one, against an echo."""

from __future__ import annotations

from collections import defaultdict
from statistics import median
from typing import Any

from rich.console import Console

from benchmarks.contenders import ACCOUNTS, CONTENDERS, NO_DATABASE, started
from benchmarks.runner import Runner, Window
from benchmarks.servers import running
from benchmarks.workloads import WORKLOADS

OPERATIONS = ("get", "complete")
IN_FLIGHT = 64


async def run(console: Console, rounds: int, window: Window) -> dict[str, Any]:
    """Interleaved rounds of both; the difference of the medians is what our path costs."""
    cpu: dict[tuple[str, str], list[float]] = defaultdict(list)
    async with running(ACCOUNTS, durable=False) as servers:
        runner = Runner(servers, window)
        for round_ in range(1, rounds + 1):
            for contender in (CONTENDERS["echo"], NO_DATABASE):
                async with started(contender, servers) as service:
                    for name in OPERATIONS:
                        measured = await runner.measure(
                            service, WORKLOADS[name], IN_FLIGHT, round_=round_
                        )
                        cpu[contender.name, name].append(measured.handler_cpu_us)
    section: dict[str, Any] = {"rounds": rounds, "in_flight": IN_FLIGHT}
    for name in OPERATIONS:
        echo, ours = median(cpu["echo", name]), median(cpu["no_database", name])
        section[name] = {"echo_us": echo, "fleetbus_us": ours, "difference_us": ours - echo}
        console.print(
            f"{name}: nats-py echo {echo:.1f} µs, fleetbus without a database {ours:.1f} µs: "
            f"{ours - echo:.1f} µs of CPU per request"
        )
    return section
