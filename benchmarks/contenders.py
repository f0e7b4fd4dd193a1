"""Who is measured: each in processes of its own, on a bus of its own."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from benchmarks.servers import Servers, cpu_of
from fleetbus.embedded._ports import free_port

ROOT = Path(__file__).resolve().parent.parent

START_TIMEOUT = 30.0

POOL = 16
"""Connections of each contender that is written by hand; fleetbus has its default, 8 and 4."""


@dataclass(frozen=True)
class Contender:
    """A program that answers the requests of the workloads."""

    name: str
    title: str
    module: str
    transport: Literal["nats", "http"] = "nats"
    keeps_promises: bool = False
    """Whether it validates, and answers a repeated key from what it has stored."""
    changes: bool = True
    """Whether it uses the database at all."""
    settings: tuple[tuple[str, str], ...] = ()


NO_DATABASE = Contender(
    "no_database",
    "fleetbus without a database",
    "benchmarks.peers.no_database",
    changes=False,
)

FLEETBUS = Contender(
    "fleetbus",
    "fleetbus",
    "fleetbus.server.processes",
    keeps_promises=True,
    settings=(("FLEETBUS_RELAY", "false"), ("FLEETBUS_LOG_LEVEL", "WARNING")),
)

CONTENDERS = {
    contender.name: contender
    for contender in (
        FLEETBUS,
        Contender("tutorial", "FastStream + ORM", "benchmarks.peers.tutorial"),
        Contender("by_hand", "by hand", "benchmarks.peers.by_hand"),
        Contender(
            "by_hand_promises",
            "by hand + promises",
            "benchmarks.peers.by_hand_promises",
            keeps_promises=True,
        ),
        Contender("http", "FastAPI + ORM", "benchmarks.peers.http_api", "http"),
        Contender("echo", "nats-py echo", "benchmarks.peers.echo", changes=False),
    )
}

PGBENCH = "pgbench"

TITLES = {name: contender.title for name, contender in CONTENDERS.items()} | {PGBENCH: PGBENCH}

COMPARED = ("tutorial", "by_hand", "by_hand_promises", "http")
"""Those whose throughput ours is divided by."""

ACCOUNTS = {name: secrets.token_hex() for name in (*CONTENDERS, "no_database")}
"""An account of the NATS server for each, so that nobody hears the requests of the others."""


class Running:
    """A contender's processes."""

    def __init__(
        self, contender: Contender, url: str, processes: list[asyncio.subprocess.Process]
    ) -> None:
        self.contender = contender
        self.url = url
        self.processes = processes

    def cpu(self) -> float:
        """CPU seconds so far."""
        return sum(cpu_of(process.pid) for process in self.processes)

    def memory(self) -> list[float]:
        """MiB that each process holds now."""
        return [psutil.Process(p.pid).memory_info().rss / 2**20 for p in self.processes]

    def peak_memory(self) -> float:
        """MiB that the largest process held at most."""
        return max(_peak(process.pid) for process in self.processes)


@asynccontextmanager
async def started(
    contender: Contender, servers: Servers, *, processes: int = 1, **settings: str
) -> AsyncIterator[Running]:
    """A contender from the moment that it takes requests until it has stopped."""
    port = free_port()
    nats_url = servers.nats.account_url(contender.name)
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "DATABASE_URL": servers.postgres.url,
        "NATS_URL": nats_url,
        "PORT": str(port),
        "POOL": str(POOL),
        **dict(contender.settings),
        **settings,
    }
    url = f"http://127.0.0.1:{port}" if contender.transport == "http" else nats_url
    running: list[asyncio.subprocess.Process] = []
    try:
        while len(running) < processes:
            running.append(await _start(contender, environment))
        yield Running(contender, url, running)
    finally:
        await asyncio.gather(*(_stop(process) for process in running))


async def _start(contender: Contender, environment: dict[str, str]) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", contender.module),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env=environment,
    )
    assert process.stdout is not None
    async with asyncio.timeout(START_TIMEOUT):
        while (line := await process.stdout.readline()) != b"ready\n":
            if not line:
                status = await process.wait()
                raise RuntimeError(f"{contender.name} ended with status {status} while starting")
    return process


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(START_TIMEOUT):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _peak(pid: int) -> float:
    """Linux tells the peak; elsewhere what is held now has to do."""
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return float(psutil.Process(pid).memory_info().rss / 2**20)
