"""How soon a crash is known: ``python -m benchmarks.crash``.

Everything that ``fleetbus up`` runs, with two handler processes and the default grace; agents are
processes of their own, each with a task. They are killed one after the other, and what passes until
``agent.crashed`` comes from the stream is printed.
"""

import asyncio
import statistics
import sys
import time
from asyncio.subprocess import PIPE, Process
from contextlib import AsyncExitStack
from typing import Annotated
from uuid import UUID

import typer
from rich.console import Console

from bus.kit.aio import end
from bus.kit.ids import uuid7
from contracts.agents.agents import AgentCrashed
from contracts.planning.tasks import CreateTask
from fleetbus.client import Bus, connect
from fleetbus.demo.children import Children
from fleetbus.server.config import Settings

APART = 0.2
"""Seconds between two kills."""

STARTING = 5
"""Agents that start at the same time."""


def main(
    kills: Annotated[int, typer.Option(min=1, help="Agents to kill.")] = 50,
) -> None:
    """Kill agents and print how soon that is known."""
    asyncio.run(_measure(kills))


async def _measure(kills: int) -> None:
    settings = Settings()
    async with Children() as children:
        url = await children.serve()
        ready = time.monotonic()
        async with connect(url) as bus:
            delays = await _kill(bus, url, kills, ready + _settled_after(settings))
    shown = sorted(round(delay * 1000) for delay in delays)
    Console().print(
        f"{kills} agents killed, grace {settings.suspicion_grace * 1000:.0f} ms; "
        f"agent.crashed after {shown[0]} ms at best, {round(statistics.median(shown))} ms in the "
        f"median, {shown[-1]} ms at worst"
    )


def _settled_after(settings: Settings) -> float:
    """Seconds that nobody is taken for crashed after a NATS server was started."""
    return settings.suspicion_grace + settings.reconnect_time


async def _kill(bus: Bus, url: str, kills: int, begin: float) -> list[float]:
    crashed: dict[UUID, float] = {}
    listening = asyncio.create_task(_listen(bus, crashed))
    places = asyncio.Semaphore(STARTING)
    async with AsyncExitStack() as stack:
        agents = await asyncio.gather(*(_start(bus, url, stack, places) for _ in range(kills)))
        await asyncio.sleep(max(0.0, begin - time.monotonic()))
        killed = {}
        for id_, process in agents:
            killed[id_] = time.monotonic()
            process.kill()
            await asyncio.sleep(APART)
        async with asyncio.timeout(60):
            while crashed.keys() != killed.keys():  # noqa: ASYNC110  the listener fills it
                await asyncio.sleep(0.01)
    await end(listening)
    return [crashed[id_] - killed[id_] for id_ in killed]


async def _listen(bus: Bus, crashed: dict[UUID, float]) -> None:
    async for event in bus.events(AgentCrashed, durable="benchmark"):
        assert event.agent.id not in crashed, "told twice"
        crashed[event.agent.id] = time.monotonic()


async def _start(
    bus: Bus, url: str, stack: AsyncExitStack, places: asyncio.Semaphore
) -> tuple[UUID, Process]:
    """Start an agent and wait until it has a task."""
    id_ = uuid7()
    await bus.call(CreateTask(name=f"for {id_}"))
    async with places:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.victim", url, str(id_)),
            stdout=PIPE,
        )
        stack.push_async_callback(_reap, process)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"working\n"
    return id_, process


async def _reap(process: Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


if __name__ == "__main__":
    typer.run(main)
