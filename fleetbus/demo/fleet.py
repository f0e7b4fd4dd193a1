"""The workers of the demo: processes that are agents, and what is done to two of them."""

import asyncio
import contextlib
import signal
from asyncio.subprocess import Process
from collections.abc import Callable, Iterator
from typing import TypeVar
from uuid import UUID

from bus.contract.errors import InvalidTransition
from bus.kit.ids import uuid7
from contracts.agents.agents import AgentCrashed, AgentNotFound, RequestAgentCancel
from fleetbus.client import Client
from fleetbus.client.events import Delivery
from fleetbus.demo.children import Children
from fleetbus.demo.recorder import Recorder
from fleetbus.demo.worker import LOST

WORKERS = 4
HOURS = "8"
"""How long the two workers that meet with an accident would take for a task."""

HOLD_SECONDS = 5.0
"""How long those two wait for a task, before it happens to them without one."""

FEW = 3
"""One begins when so many tasks are done: then there are several to choose from."""

SHOWN_SECONDS = 0.5
"""How long it is to be seen that they work."""

PATIENCE_SECONDS = 30.0
"""How long the demo waits for what should happen; what does not happen, the checks find."""

T = TypeVar("T")

KILLED = -signal.SIGKILL


class Fleet:
    """Workers by their names; ``say`` tells what happens to them, a line each."""

    def __init__(
        self, children: Children, url: str, recorder: Recorder, say: Callable[[str], None]
    ) -> None:
        self.names = [f"worker-{number}" for number in range(1, WORKERS + 1)]
        self.ids = {name: uuid7() for name in self.names}
        self.hurt: set[UUID] = set()
        """The agents whose process was killed or frozen."""
        self._children = children
        self._url = url
        self._recorder = recorder
        self._say = say
        self._expected: list[tuple[str, Process, int]] = []
        """Every process with the status that it should end with."""

    async def work(self) -> None:
        """Start all workers; kill one and freeze one, both in the middle of a task."""
        *sound, killed, frozen = self.names
        for name in sound:
            await self._start(name)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._kill(killed))
            group.create_task(self._freeze(frozen))

    async def dismiss(self, bus: Client) -> None:
        """Ask all to end, and wait until they have; one that does not is a failure."""
        for agent_id in self.ids.values():
            with contextlib.suppress(AgentNotFound, InvalidTransition):
                await bus.call(RequestAgentCancel(id=agent_id))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                for _, process, _ in self._expected:
                    await process.wait()

    def failures(self) -> Iterator[str]:
        """Processes that ended with another status than they should."""
        for name, process, expected in self._expected:
            if process.returncode != expected:
                yield f"{name} ended with status {process.returncode}, not {expected}"

    @property
    def failed(self) -> bool:
        """Whether a worker has ended before it was asked to."""
        return any(process.returncode not in {None, want} for _, process, want in self._expected)

    async def _kill(self, name: str) -> None:
        process = await self._start_slow(name)
        self._strike(name, process, signal.SIGKILL, ends_with=KILLED)
        if await self._crash_of(name):
            await self._start(name)
            self._say(f"{name} is started again, as the same agent")

    async def _freeze(self, name: str) -> None:
        await self._until(lambda: sum(self._recorder.done_by.values()) >= FEW, HOLD_SECONDS)
        process = await self._start_slow(name)
        self._strike(name, process, signal.SIGSTOP, ends_with=LOST)
        if await self._crash_of(name):
            process.send_signal(signal.SIGCONT)
            await process.wait()
            self._say(f"{name} is woken up, learns that it is no longer the agent, and ends")

    async def _start_slow(self, name: str) -> Process:
        """Start a worker that takes hours for a task, and wait until it has one."""
        process = await self._start(name, "--hours", HOURS)
        await self._until(lambda: self._recorder.task_of(name), HOLD_SECONDS)
        await asyncio.sleep(SHOWN_SECONDS)
        return process

    def _strike(
        self, name: str, process: Process, number: signal.Signals, *, ends_with: int
    ) -> None:
        process.send_signal(number)
        self.hurt.add(self.ids[name])
        others = [entry for entry in self._expected if entry[1] is not process]
        self._expected = [*others, (name, process, ends_with)]
        task = self._recorder.task_of(name) or "nothing"
        self._say(f"{name} gets a {number.name} while it holds: {task}")

    async def _crash_of(self, name: str) -> Delivery[AgentCrashed] | None:
        """Wait until it is told, and say so."""
        began = asyncio.get_running_loop().time()
        crash = await self._until(lambda: self._recorder.crashes.get(self.ids[name]))
        if crash is None:
            self._say(f"there is no event of a crash of {name}")
            return None
        seconds = asyncio.get_running_loop().time() - began
        became = ", ".join(task.outcome for task in crash.event.tasks) or "none"
        cause = crash.event.cause.replace("_", " ")
        self._say(f"{crash.type} {name}: {cause}, after {seconds:.1f} s; its task: {became}")
        return crash

    async def _start(self, name: str, *options: str) -> Process:
        process = await self._children.work(self._url, name, str(self.ids[name]), *options)
        self._expected.append((name, process, 0))
        return process

    async def _until(
        self, condition: Callable[[], T | None], seconds: float = PATIENCE_SECONDS
    ) -> T | None:
        """What the condition comes to, once it is something; None if it takes too long."""
        try:
            async with asyncio.timeout(seconds):
                return await self._recorder.until(condition)
        except TimeoutError:
            return None
