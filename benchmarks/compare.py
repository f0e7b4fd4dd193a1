"""Fleetbus against what a user would otherwise write: interleaved rounds, medians, ratios."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console

from benchmarks import checks, floor
from benchmarks.contenders import CONTENDERS, PGBENCH, Contender, Running, started
from benchmarks.runner import Measurement, NotMeasured, Runner, Window
from benchmarks.servers import Servers
from benchmarks.workloads import WORKLOADS

NAMES = (*CONTENDERS, PGBENCH)
IN_FLIGHT = (1, 8, 64, 256)

MAX_CLIENTS = 64
"""More connections than this only make Postgres slower."""


@dataclass(frozen=True)
class Plan:
    """What to measure."""

    contenders: Sequence[str] = NAMES
    workloads: Sequence[str] = tuple(WORKLOADS)
    in_flight: Sequence[int] = IN_FLIGHT
    rounds: int = 5
    window: Window = field(default_factory=Window)


class Comparison:
    """A run over all contenders, round after round."""

    def __init__(self, servers: Servers, plan: Plan, console: Console) -> None:
        self.measurements: list[Measurement] = []
        self.skipped: dict[str, str] = {}
        self._servers = servers
        self._plan = plan
        self._console = console
        self._runner = Runner(servers, plan.window)

    async def run(self) -> None:
        """All rounds; in each, one contender after the other."""
        for round_ in range(1, self._plan.rounds + 1):
            for name in self._plan.contenders:
                if name == PGBENCH:
                    await self._measure_floor(round_)
                else:
                    await self._measure(CONTENDERS[name], round_)

    async def _measure(self, contender: Contender, round_: int) -> None:
        async with started(contender, self._servers) as running:
            for name in self._plan.workloads:
                if not contender.changes and name not in {"get", "complete"}:
                    continue
                if why := await checks.check(running, name, self._servers):
                    self._skip(contender.name, name, why)
                    continue
                for in_flight in self._plan.in_flight:
                    await self._measure_once(running, name, in_flight, round_)

    async def _measure_once(
        self, running: Running, workload: str, in_flight: int, round_: int
    ) -> None:
        try:
            self._note(
                await self._runner.measure(running, WORKLOADS[workload], in_flight, round_=round_)
            )
        except NotMeasured as why:
            what = f"{workload}, {in_flight} in flight, round {round_}"
            self._skip(running.contender.name, what, str(why))

    async def _measure_floor(self, round_: int) -> None:
        for name in self._plan.workloads:
            if name not in floor.SCRIPTS:
                continue
            for in_flight in self._plan.in_flight:
                if in_flight <= MAX_CLIENTS:
                    window = self._plan.window
                    self._note(await floor.measure(self._servers, name, in_flight, window, round_))

    def _note(self, m: Measurement) -> None:
        self.measurements.append(m)
        self._console.print(
            f"{m.round}  {m.contender:17} {m.workload:9} {m.in_flight:4}  "
            f"{m.throughput:9,.0f}/s  p50 {m.p50_ms:7.2f} ms  handler {m.handler_cpu_us:6.0f} µs",
            style="dim",
            highlight=False,
        )

    def _skip(self, contender: str, workload: str, why: str) -> None:
        kind = f"{contender}: {workload}"
        if kind not in self.skipped:
            self.skipped[kind] = why
            self._console.print(f"{kind} is left out: {why}", style="yellow")
