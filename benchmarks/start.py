"""What it costs to start: a command, a client, a handler process until it takes requests."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from rich.console import Console

from benchmarks.contenders import ACCOUNTS, FLEETBUS, ROOT, Contender, started
from benchmarks.servers import Servers, running

_PROGRAM = """
import sys
sys.modules["aiohttp"] = None
try:
    {}
finally:
    with open("/proc/self/status") as status:
        print("peak", *[line.split()[1] for line in status if line.startswith("VmHWM")])
"""
"""nats-py imports aiohttp where it is installed, which it is for the load generator alone. What a
process took at most is known to it; to others Linux tells what its parent took, if that is more."""

_COMMAND = "from fleetbus.cli.app import main; sys.exit(main())"
_CLIENT = "from fleetbus.client import connect"
_TYPED = f"{_CLIENT}; from contracts.planning.tasks import ListTasks"

PROGRAMS: dict[str, tuple[str, ...]] = {
    "Python alone": ("pass",),
    "`fleetbus --help`": (_COMMAND, "--help"),
    "`fleetbus call`": (_COMMAND, "call", "db.meta.operations"),
    "the client, imported": (_CLIENT,),
    "the client and the contracts of tasks": (_TYPED,),
}
"""What is started: a line of Python, and its arguments."""

NO_SETTINGS: Mapping[str, str] = {}

MODULE = "benchmarks.toys.serving"

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
                for name, what in PROGRAMS.items():
                    one = await asyncio.to_thread(program, *what, NATS_URL=service.url)
                    found.setdefault(name, []).append(one)
        found[HANDLER] = [await handler_process(servers) for _ in range(1 + rounds)]
    measured = {name: summary(starts[1:]) for name, starts in found.items()}
    for name, figures in measured.items():
        console.print(f"{name}: {shown(figures)}")
    return {"durable": durable, "rounds": rounds, "measured": measured}


def program(line: str, *arguments: str, **environment: str) -> Start:
    """Run a line of Python to its end, which is to be a good one."""
    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(line), *arguments],
        cwd=ROOT,
        env={"PATH": os.environ.get("PATH", ""), **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    took, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Start(cpu, took, int(ended.stdout.split()[-1]) / 1024)


def serving(settings: Mapping[str, str]) -> Contender:
    """fleetbus, without what only the load generator needs; these settings in its environment."""
    more = (*FLEETBUS.settings, *settings.items())
    return replace(FLEETBUS, module=MODULE, settings=more)


async def handler_process(servers: Servers, settings: Mapping[str, str] = NO_SETTINGS) -> Start:
    """Start a handler process, and end it as soon as it is ready."""
    begun = time.monotonic()
    async with started(serving(settings), servers) as service:
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
