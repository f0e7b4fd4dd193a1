"""The history of a stream, read through a durable consumer while it comes about."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import TypeVar, cast
from uuid import UUID

from bus.contract.entity import Entity
from bus.contract.event import Event
from contracts.agents.agents import AgentCrashed, AgentRegistered, ListAgents
from contracts.planning.initiatives import GetInitiative
from contracts.planning.phases import ListPhases
from contracts.planning.tasks import ListTasks, TaskClaimed, TaskCompleted
from fleetbus.client import Client
from fleetbus.client.events import Delivery, Events
from fleetbus.demo.verify import entity_of
from fleetbus.importing.present import all_of

T = TypeVar("T")

CATCH_UP_SECONDS = 15.0


class Recorder:
    """Keeps every event of the stream, and who has which task by what they say.

    Agents are known by their names here.
    """

    def __init__(self, bus: Client, *, durable: str, stream: str = "EVENTS") -> None:
        self.history: list[Delivery[Event]] = []
        self.in_hand: dict[str, tuple[str, str]] = {}
        """By task id: who has it, and its name."""
        self.done_by: dict[str, int] = {}
        self.crashes: dict[UUID, Delivery[AgentCrashed]] = {}
        """By agent id: the last that was told."""
        self._names: dict[str, str] = {}
        self._bus = bus
        self._durable = durable
        self._stream = stream
        self._versions: dict[str, int] = {}
        self._arrived = asyncio.Event()

    async def run(self) -> None:
        """Read until cancelled."""
        events: Events[Event] = self._bus.events(durable=self._durable, stream=self._stream)
        async with events:
            while True:
                # Waiting for events ends by a timeout while none come.
                with contextlib.suppress(TimeoutError):
                    self._take(await events.delivery())

    async def until(self, condition: Callable[[], T | None]) -> T:
        """What the condition comes to, once events made it something."""
        while not (met := condition()):
            await self._next()
        return met

    def task_of(self, name: str) -> str | None:
        """The name of a task that this agent has."""
        return next((task for who, task in self.in_hand.values() if who == name), None)

    async def catch_up(self, stored: Iterable[Entity]) -> None:
        """Wait until all changes of these entities have been told and the stream is read.

        What has not been told by the limit stays missing, for the checks to find.
        """
        wanted = {str(entity.id): entity.version for entity in stored}
        try:
            async with asyncio.timeout(CATCH_UP_SECONDS):
                while any(self._versions.get(key, 0) < wanted[key] for key in wanted):
                    await self._next()
                info = await self._bus.nats.jetstream().stream_info(self._stream)
                while len(self.history) < info.state.messages:
                    await self._next()
        except TimeoutError:
            return

    async def _next(self) -> None:
        self._arrived.clear()
        await self._arrived.wait()

    def _take(self, delivery: Delivery[Event]) -> None:
        self.history.append(delivery)
        self._versions[delivery.entity_id] = entity_of(delivery).version
        match delivery.event:
            case AgentRegistered(agent=agent):
                self._names[str(agent.id)] = agent.name
            case AgentCrashed(agent=agent):
                self.crashes[agent.id] = cast("Delivery[AgentCrashed]", delivery)
            case TaskClaimed(task=task):
                who = task.claimed_by or ""
                self.in_hand[delivery.entity_id] = (self._names.get(who, who), task.name)
            case TaskCompleted():
                who, _ = self.in_hand.pop(delivery.entity_id, ("", ""))
                self.done_by[who] = self.done_by.get(who, 0) + 1
            case _ if delivery.type.startswith("task."):
                if getattr(entity_of(delivery), "status", "") != "in_progress":
                    self.in_hand.pop(delivery.entity_id, None)
        self._arrived.set()


async def read_stored(bus: Client, initiative_id: UUID) -> list[Entity]:
    """An initiative as the tables have it: itself, its phases, its tasks; and all agents."""
    initiative = await bus.call(GetInitiative(id=initiative_id))
    phases = await all_of(bus, ListPhases(initiative_id=initiative_id))
    tasks = await all_of(bus, ListTasks(initiative_id=initiative_id))
    agents = await all_of(bus, ListAgents())
    return [initiative, *phases, *tasks, *agents]
