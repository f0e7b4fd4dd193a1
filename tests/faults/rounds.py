"""One round: servers, handlers, clients, a schedule of faults; then healing, rest, judgement."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from fleetbus.embedded.postgres import EmbeddedPostgres
from tests.faults.checker import Violation, answered, check, crashes, zombie
from tests.faults.evidence import Evidence
from tests.faults.fleet import Fleet, Servers, fleet
from tests.faults.history import Fault, Recorder
from tests.faults.nemeses import NEMESES
from tests.faults.nodes import connected, make_stream, nodes_of
from tests.faults.observing import REST_LIMIT, drained, keep_outages, observe
from tests.faults.schedule import Strike, nodes_for, possible, schedule
from tests.faults.workload import Workload, callers
from tests.faults.world import World
from tests.servers import migrate

PROGRESS_WITHIN = 20.0
"""Seconds after which a fault strikes although the clients do not get on."""

LAST_REQUESTS = 40
"""Requests after the last fault."""


@dataclass
class Result:
    """What came of a round."""

    seed: int
    faults: int
    nodes: int
    only: list[str] = field(default_factory=list)
    struck: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    requests: int = 0
    events: int = 0
    rested: float | None = None
    seconds: float = 0.0
    history: str = ""

    @property
    def command(self) -> str:
        """What repeats this round."""
        only = f" ARGS='--only {' '.join(self.only)}'" if self.only else ""
        return f"make faults FAULTS={self.faults} SEED={self.seed} ROUNDS=1{only}"

    def report(self) -> str:
        """The violations, with what is needed to look into them."""
        lines = [str(violation) for violation in self.violations[:20]]
        more = len(self.violations) - len(lines)
        if more > 0:
            lines.append(f"and {more} more")
        return "\n".join([*lines, f"repeat: {self.command}", f"history: {self.history}"])

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"command": self.command}


async def run_round(
    seed: int, faults: int, directory: Path, results: Path, *, names: Sequence[str] = ()
) -> Result:
    """Run and judge the round of a seed; its history and logs are kept under ``results``."""
    began = time.monotonic()
    nodes = nodes_for(seed, names)
    recorder = Recorder(results / f"history-{seed}.jsonl")
    result = Result(seed, faults, nodes, list(names), history=str(recorder.path))
    strikes = schedule(seed, faults, possible(nodes, names))
    try:
        async with everything(directory, nodes) as running:
            world = await _suffer(running, recorder, seed, strikes, result)
            result.violations = check(recorder.history, world)
            keep_logs(running, recorder.path)
    except Exception as error:
        error.add_note(f"the harness failed; repeat: {result.command}")
        raise
    finally:
        recorder.close()
    result.requests = len(recorder.history.exchanges)
    result.events = len(world.outbox)
    result.rested = world.rested
    result.seconds = time.monotonic() - began
    return result


@asynccontextmanager
async def everything(directory: Path, nodes: int) -> AsyncIterator[Fleet]:
    """Servers of our own with two handlers on them, started."""
    postgres = EmbeddedPostgres(directory, durable=False)
    servers = Servers(postgres, nodes_of(directory, nodes))
    try:
        await asyncio.gather(postgres.start(), *(node.start() for node in servers.nodes))
        await migrate(postgres.url)
        urls = [node.url for node in servers.nodes]
        async with connected(*urls) as client:
            await make_stream(client, nodes)
        async with fleet(
            postgres.url, urls, servers=servers, FLEETBUS_STREAM_REPLICAS=str(nodes)
        ) as running:
            await keep_outages(running)
            await running.start()
            yield running
    finally:
        await asyncio.gather(postgres.stop("immediate"), *(node.kill() for node in servers.nodes))


async def _suffer(
    running: Fleet, recorder: Recorder, seed: int, strikes: Sequence[Strike], result: Result
) -> World:
    async with callers(running.client_urls, recorder) as made:
        workload = Workload(made, seed)
        working = asyncio.create_task(workload.run())
        for strike in strikes:
            await progress(recorder, strike.after)
            await _strike(running, recorder, strike, result)
        await progress(recorder, LAST_REQUESTS)
        await running.heal()
        workload.stop()
        await working
        return await settle(running, recorder)


async def settle(running: Fleet, recorder: Recorder, *, limit: float = REST_LIMIT) -> World:
    """Look until the stream has everything and every request its answer, for so many seconds."""
    began = time.monotonic()
    while True:
        late = time.monotonic() - began > limit
        if late or await drained(running):
            world = await observe(running, None if late else time.monotonic() - began)
            evidence = Evidence(recorder.history, world)
            if late or not any((*zombie(evidence), *answered(evidence), *crashes(evidence))):
                return world
        await asyncio.sleep(0.1)


async def progress(recorder: Recorder, requests: int) -> None:
    """Wait until so many more requests were sent; not for ever, for a fault may hinder them."""
    wanted = len(recorder.history.exchanges) + requests
    end = time.monotonic() + PROGRESS_WITHIN
    while len(recorder.history.exchanges) < wanted and time.monotonic() < end:  # noqa: ASYNC110  clients must not be slowed by those who watch
        await asyncio.sleep(0.01)


async def _strike(running: Fleet, recorder: Recorder, strike: Strike, result: Result) -> None:
    nemesis = NEMESES[strike.nemesis]
    began = time.monotonic()
    target = await nemesis.strike(running, Random(strike.seed))
    if target is None:
        result.missed.append(nemesis.name)
        return
    result.struck.append(nemesis.name)
    recorder.fault(
        Fault(nemesis.name, target, began, time.monotonic(), nemesis.excuses, nemesis.loses)
    )


def keep_logs(running: Fleet, history: Path) -> None:
    """Write what the handler processes said beside the history."""
    for number, handler in enumerate(running.handlers):
        history.with_suffix(f".handler-{number}.log").write_text(handler.said)
