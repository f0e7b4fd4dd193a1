"""Agents that tests kill, and what the stream says of them."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from bus.contract.event import Event
from bus.kit.aio import end
from bus.kit.ids import uuid7
from contracts.agents.agents import GetAgent, Heartbeat, RegisterAgent
from contracts.planning.tasks import ClaimTasks, CreateTask, GetTask, Task
from fleetbus.client import Bus, connect
from tests.bus.asking import eventually

GRACE = 0.5
RECONNECT_TIME = 0.5

LIMIT = 60.0
"""Seconds that a test waits for what must come."""


@dataclass(frozen=True)
class Worker:
    """An agent in a process of its own that works on a task."""

    process: asyncio.subprocess.Process
    agent: UUID
    task: UUID

    def send(self, number: signal.Signals) -> float:
        """Send a signal; returns the Unix time of it."""
        now = time.time()
        self.process.send_signal(number)
        return now

    async def complete(self) -> str:
        """Let it complete its task; returns what came of it."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"complete\n")
        return await self.said("task")

    async def said(self, text: str) -> str:
        """The next line that contains this."""
        assert self.process.stdout is not None
        async with asyncio.timeout(LIMIT):
            async for line in self.process.stdout:
                if text in line.decode():
                    return line.decode().strip()
        raise AssertionError(f"it ended without saying {text!r}")


@asynccontextmanager
async def working(
    bus: Bus, url: str, *, interval: int = 10, task: Task | None = None
) -> AsyncIterator[Worker]:
    """A worker on a task, one of its own if none is given; killed with the block."""
    agent = uuid7()
    if task is None:
        task = await bus.call(CreateTask(name=f"for {agent}", priority="high"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fleetbus.detector.worker", url, str(agent), str(interval)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    worker = Worker(process, agent, task.id)
    try:
        assert str(task.id) in await worker.said("working on")
        yield worker
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def take_out_of_the_way(bus: Bus) -> None:
    """Claim the task that is ready; a claim passes over it while a second decision looks at it."""

    async def taken() -> bool:
        return bool((await bus.call(ClaimTasks(agent_id="out of the way"))).tasks)

    await eventually(taken)


async def task_of(bus: Bus, worker: Worker) -> Task:
    return await bus.call(GetTask(id=worker.task))


@asynccontextmanager
async def living(url: str, *, interval: int = 1) -> AsyncIterator[tuple[UUID, Bus]]:
    """An agent in this process that sends heartbeats; its connection is closed with the block."""
    agent = uuid7()
    async with connect(url, agent=agent, timeout=LIMIT, attempt_timeout=1) as bus:
        await bus.call(RegisterAgent(id=agent, heartbeat_interval_s=interval))
        beating = asyncio.create_task(_beat(bus, agent, interval))
        try:
            yield agent, bus
        finally:
            await end(beating)


async def _beat(bus: Bus, agent: UUID, interval: float) -> None:
    while True:
        await bus.call(Heartbeat(id=agent, incarnation=1))
        await asyncio.sleep(interval)


async def is_unharmed(bus: Bus, agent: UUID) -> bool:
    """Whether it is expected to live, and nothing speaks against it."""
    found = await bus.call(GetAgent(id=agent))
    return found.lease_expires_at is not None and found.suspected_at is None


class History:
    """Every event that has come, in order, with the Unix time at which it came."""

    def __init__(self) -> None:
        self.events: list[tuple[float, Event]] = []
        self._changed = asyncio.Event()

    async def listen(self, bus: Bus) -> None:
        async for event in bus.events(durable=f"history-{uuid7()}"):
            self.events.append((time.time(), event))
            self._changed.set()

    def of(self, kind: type[Event], agent: UUID | None = None) -> list[Any]:
        """Those of a type, of one agent if it is given."""
        return [event for _, event in self._found(kind, agent)]

    async def when(self, kind: type[Event], agent: UUID) -> float:
        """Wait for the first of a type that concerns an agent; returns when it came."""
        async with asyncio.timeout(LIMIT):
            while not (found := self._found(kind, agent)):
                self._changed.clear()
                await self._changed.wait()
        return found[0][0]

    def _found(self, kind: type[Event], agent: UUID | None) -> list[tuple[float, Any]]:
        events: list[tuple[float, Any]] = [e for e in self.events if type(e[1]) is kind]
        return [(at, event) for at, event in events if agent in {None, event.agent.id}]


@asynccontextmanager
async def history(bus: Bus) -> AsyncIterator[History]:
    """What is told from now on, and what was before."""
    found = History()
    listening = asyncio.create_task(found.listen(bus))
    try:
        yield found
    finally:
        await end(listening)
