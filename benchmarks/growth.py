"""What becomes slower as the table grows, and what faster with more processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.contenders import ACCOUNTS, FLEETBUS, started
from benchmarks.runner import Measurement, Runner, Window
from benchmarks.servers import running
from benchmarks.workloads import WORKLOADS

OPERATIONS = ("claim", "complete", "get")

RATE = 100.0
"""Requests per second while latencies are compared: as many as the smallest table has tasks for."""


async def run(
    console: Console,
    sizes: Sequence[int],
    processes: Sequence[int],
    window: Window,
    *,
    durable: bool,
) -> dict[str, Any]:
    """Latency at each size of the table, then throughput with each number of processes."""
    async with running(ACCOUNTS, durable=durable) as servers:
        runner = Runner(servers, window)
        by_size: list[tuple[int, Measurement]] = []
        async with started(FLEETBUS, servers) as service:
            for size in sizes:
                for name in OPERATIONS:
                    measured = await runner.measure(
                        service, WORKLOADS[name], 1, rate=RATE, tasks=size
                    )
                    by_size.append((size, measured))
        by_processes: list[tuple[int, Measurement]] = []
        for count in processes:
            async with started(FLEETBUS, servers, processes=count) as service:
                for name in OPERATIONS:
                    measured = await runner.measure(service, WORKLOADS[name], 64)
                    by_processes.append((count, measured))
    console.print(_latencies(by_size))
    console.print(_throughputs(by_processes))
    return {
        "durable": durable,
        "sizes": [{"tasks": size, **asdict(m)} for size, m in by_size],
        "processes": [{"processes": count, **asdict(m)} for count, m in by_processes],
    }


def _latencies(measured: Sequence[tuple[int, Measurement]]) -> Table:
    sizes = list(dict.fromkeys(size for size, _ in measured))
    table = Table(title=f"p50 in ms at {RATE:.0f} requests per second", title_justify="left")
    table.add_column("tasks")
    for size in sizes:
        table.add_column(f"{size:,}", justify="right")
    table.add_column("growth", justify="right")
    for name in OPERATIONS:
        p50 = [m.p50_ms for _, m in measured if m.workload == name]
        growth = f"{p50[-1] / p50[0]:.2f}×"
        table.add_row(name, *(f"{value:.2f}" for value in p50), growth)
    return table


def _throughputs(measured: Sequence[tuple[int, Measurement]]) -> Table:
    counts = list(dict.fromkeys(count for count, _ in measured))
    table = Table(title="operations per second, 64 in flight", title_justify="left")
    table.add_column("processes")
    for count in counts:
        table.add_column(str(count), justify="right")
    for name in OPERATIONS:
        values = [m.throughput for _, m in measured if m.workload == name]
        table.add_row(name, *(f"{value:,.0f}" for value in values))
    return table
