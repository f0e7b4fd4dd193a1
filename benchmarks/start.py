"""What it costs to start: a command, a client, a handler process until it takes requests."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from rich.console import Console

from benchmarks.contenders import ACCOUNTS, FLEETBUS, ROOT, Contender, started
from benchmarks.servers import Servers, running

CLIENT = "from fleetbus.client import connect"
TYPED = f"{CLIENT}; from contracts.planning.tasks import ListTasks"

PROGRAMS = {
    "Python alone": ("-c", "pass"),
    "`fleetbus --help`": ("-m", "fleetbus", "--help"),
    "`fleetbus call`": ("-m", "fleetbus", "call", "db.meta.operations"),
    "the client is imported": ("-c", CLIENT),
    "the client and the contracts of tasks": ("-c", TYPED),
}
"""What is started, each by these arguments to Python."""

HANDLER = "a handler process, until it takes requests"


@dataclass(frozen=True)
class Start:
    """One start."""

    cpu_s: float
    wall_s: float
    peak_mib: float


async def run(console: Console, rounds: int, *, durable: bool) -> dict[str, Any]:
    """Every program in turn, so many rounds; a first round that does not count fills the caches."""
    found: dict[str, list[Start]] = {}
    async with running(ACCOUNTS, durable=durable) as servers:
        async with started(FLEETBUS, servers) as service:
            for _ in range(1 + rounds):
                for name, arguments in PROGRAMS.items():
                    one = await asyncio.to_thread(program, arguments, NATS_URL=service.url)
                    found.setdefault(name, []).append(one)
        found[HANDLER] = [await handler_process(servers) for _ in range(1 + rounds)]
    measured = {name: summary(starts[1:]) for name, starts in found.items()}
    for name, figures in measured.items():
        console.print(f"{name}: {shown(figures)}")
    return {"durable": durable, "rounds": rounds, "measured": measured}


def program(arguments: Sequence[str], **environment: str) -> Start:
    """Run Python with these arguments to its end, which is to be a good one."""
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={"PATH": os.environ.get("PATH", ""), **environment},
        stdout=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)} ended with status {process.returncode}")
    peak = used.ru_maxrss / 1024
    return Start(used.ru_utime + used.ru_stime, time.monotonic() - begun, peak)


async def handler_process(servers: Servers, contender: Contender = FLEETBUS) -> Start:
    """Start a handler process, and end it as soon as it is ready."""
    begun = time.monotonic()
    async with started(contender, servers) as service:
        took = time.monotonic() - begun
        return Start(service.cpu(), took, service.peak_memory())


def summary(starts: Sequence[Start]) -> dict[str, list[float]]:
    """Median, lowest and highest of each figure."""
    figures = {name: sorted(getattr(one, name) for one in starts) for name in vars(starts[0])}
    return {name: [median(all_), all_[0], all_[-1]] for name, all_ in figures.items()}


def shown(figures: dict[str, list[float]]) -> str:
    """A summary in a line."""
    cpu, wall, peak = (figures[name] for name in ("cpu_s", "wall_s", "peak_mib"))
    return (
        f"{cpu[0]:.3f} s CPU ({cpu[1]:.3f} to {cpu[2]:.3f}), "
        f"{wall[0]:.3f} s ({wall[1]:.3f} to {wall[2]:.3f}), {peak[0]:.0f} MiB at most"
    )
