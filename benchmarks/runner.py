"""Measures contenders one after the other, round after round."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass

from benchmarks.contenders import ROOT, Running
from benchmarks.load import Counted, Spec
from benchmarks.servers import Servers
from benchmarks.workloads import Workload

FIRST_GUESS = 30_000
"""Requests per second that nobody exceeds who uses up tasks."""

MARGIN = 3.0
"""How much faster than before a measurement may turn out; a machine is not always equally busy."""


@dataclass(frozen=True)
class Measurement:
    """One contender under one workload, once. CPU in microseconds per operation."""

    contender: str
    workload: str
    in_flight: int
    round: int
    operations: int
    errors: int
    throughput: float
    p50_ms: float
    p99_ms: float
    handler_cpu_us: float
    postgres_cpu_us: float
    nats_cpu_us: float
    load_cpu_us: float
    round_trips: float
    peak_mib: float


class NotMeasured(Exception):
    """A measurement that says nothing; the message says why."""


class Load:
    """A load generator that has been started."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def begun(self) -> bool:
        """Wait for the end of the warm-up; False if the requests ran out before."""
        return await self._line() == b"begin\n"

    async def ended(self) -> None:
        """Wait for the end of the time; answers are still under way."""
        await self._line()

    async def counted(self) -> Counted:
        """Wait for the last answer."""
        line = await self._line()
        await self._process.wait()
        return Counted(**json.loads(line))

    async def _line(self) -> bytes:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise NotMeasured(f"the load generator ended with {await self._process.wait()}")
        return line


@asynccontextmanager
async def load(spec: Spec) -> AsyncIterator[Load]:
    """A load generator in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.load", json.dumps(asdict(spec))),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        yield Load(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@dataclass(frozen=True)
class Window:
    """How long one measurement takes, in seconds."""

    seconds: float = 2.0
    warmup: float = 0.5


class Runner:
    """Measures; remembers how fast each was, to prepare no more tasks than are needed."""

    def __init__(self, servers: Servers, window: Window) -> None:
        self.servers = servers
        self.window = window
        self._fastest: dict[tuple[str, str, int], float] = {}

    def _at_most(self, contender: str, workload: str, in_flight: int) -> float:
        """Requests per second to be ready for: with twice as many in flight, not twice as many."""
        known = [
            fastest * max(1.0, in_flight / number)
            for (*kind, number), fastest in self._fastest.items()
            if kind == [contender, workload]
        ]
        return min([FIRST_GUESS, *(MARGIN * fastest for fastest in known)])

    async def measure(
        self,
        running: Running,
        workload: Workload,
        in_flight: int,
        *,
        round_: int = 1,
        rate: float = 0.0,
        tasks: int = 0,
    ) -> Measurement:
        """One measurement, on tables that hold nothing but what it needs.

        With ``rate`` no more requests per second than that, on ``tasks`` tasks in all.
        """
        kind = (running.contender.name, workload.name, in_flight)
        per_second = rate or self._at_most(*kind)
        rows = workload.rows(per_second * (self.window.seconds + self.window.warmup))
        if tasks:
            rows = min(rows, tasks)
        filled = rows if running.contender.changes else 0
        prefix = await self.servers.prepare(workload, filled, max(0, tasks - rows))
        spec = Spec(
            transport=running.contender.transport,
            url=running.url,
            workload=workload.name,
            in_flight=in_flight,
            seconds=self.window.seconds,
            warmup=self.window.warmup,
            prefix=prefix,
            rows=rows,
            rate=rate,
        )
        async with load(spec) as generator:
            if not await generator.begun():
                raise NotMeasured("the tasks were used up during the warm-up")
            before, cpu = await self.servers.spent(), running.cpu()
            await generator.ended()
            cpu = running.cpu() - cpu
            after = await self.servers.spent()
            counted = await generator.counted()
        if counted.errors:
            raise NotMeasured(
                f"{counted.errors} of {counted.operations} requests failed, the first with "
                f"{counted.first_error}"
            )
        operations = max(counted.operations, 1)
        throughput = operations / counted.seconds
        self._fastest[kind] = max(throughput, self._fastest.get(kind, 0.0))
        return Measurement(
            contender=running.contender.name,
            workload=workload.name,
            in_flight=in_flight,
            round=round_,
            operations=counted.operations,
            errors=counted.errors,
            throughput=throughput,
            p50_ms=counted.p50_ms,
            p99_ms=counted.p99_ms,
            handler_cpu_us=cpu / operations * 1e6,
            postgres_cpu_us=(after.postgres_cpu - before.postgres_cpu) / operations * 1e6,
            nats_cpu_us=(after.nats_cpu - before.nats_cpu) / operations * 1e6,
            load_cpu_us=counted.cpu_us,
            round_trips=(after.statements - before.statements) / operations,
            peak_mib=running.peak_memory(),
        )
