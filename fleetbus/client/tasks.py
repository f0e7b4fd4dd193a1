"""The tasks of an agent, one after the other, as they become ready."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self
from uuid import UUID
from weakref import WeakSet

import pydantic_core
from nats.aio.client import Client
from nats.aio.msg import Msg

from bus.contract.refusals import Refusal
from bus.kit.ids import uuid7
from bus.kit.nats_io import flush
from contracts.planning.tasks import ClaimedTask, ClaimTasks
from fleetbus.client.errors import AgentLost, TaskLost
from fleetbus.client.hand import TaskInHand
from fleetbus.client.heart import ENDED

if TYPE_CHECKING:
    from fleetbus.client.calling import Caller

CLAIMABLE = (
    "events.task.created.*",
    "events.task.ready.*",
    "events.task.released.*",
    "events.task.retried.*",
    "events.task.lease_expired.*",
    "events.phase.started.*",
)
"""After these events there may be something to claim."""

CATEGORIES = ClaimTasks.model_fields["categories"].default
"""What is claimed unless categories are named."""

POLL_FIRST, POLL_MOST = 1.0, 15.0
"""Seconds between two looks while no event comes: one can be missed, so it looks all the same."""

SPREAD = 0.05
"""Seconds over which idle agents spread their claims after an event."""

FORGOTTEN = "The agent went on to the next task and did not say what became of this one."


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which tasks, and how they are taken."""

    filters: dict[str, Any]
    """Of ``ClaimTasks``: initiative_id, phase_id, categories; what is absent is left to it."""
    lease_seconds: int
    idle_seconds: float | None
    """How long the iteration waits for work before it ends; None: for ever."""


class Claimant(Protocol):
    """An agent as far as the iteration needs it."""

    bus: Caller

    @property
    def id(self) -> UUID: ...

    @property
    def incarnation(self) -> int: ...

    async def confirm(self) -> None:
        """Raise unless the service still knows the agent as this one."""

    async def confirm_if_overdue(self) -> None:
        """The same, if no heartbeat has been answered for too long."""

    def take(self, claimed: ClaimedTask, lease_seconds: int) -> TaskInHand:
        """Take a claimed task in hand."""


class Tasks:
    """An iteration over tasks, each claimed when it is asked for."""

    def __init__(self, agent: Claimant, lookout: Lookout, wanted: Wanted) -> None:
        self._agent = agent
        self._lookout = lookout
        self._wanted = wanted
        self._changed = asyncio.Event()
        self._pause = POLL_FIRST
        self._current: TaskInHand | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TaskInHand:
        await self._leave()
        await self._lookout.add(self)
        idle_since = time.monotonic()
        while True:
            self._changed.clear()
            if (task := await self._claim()) is not None:
                self._pause = POLL_FIRST
                self._current = task
                return task
            idle, most = time.monotonic() - idle_since, self._wanted.idle_seconds
            if most is not None and idle >= most:
                raise StopAsyncIteration
            await self._wait(POLL_MOST if most is None else most - idle)

    async def _leave(self) -> None:
        """Release a task without a verdict; if it was lost, find out whether the agent is, too."""
        task, self._current = self._current, None
        if task is None:
            return
        if not task.settled:
            with suppress(TaskLost):
                await task.release(FORGOTTEN)
            # Else it would claim what it forgot again at once, and again.
            await asyncio.sleep(self._next_pause())
        if task.lost is not None:
            await self._agent.confirm()

    async def _claim(self) -> TaskInHand | None:
        """The next task, if there is one. The outcome of a claim is found out, however long."""
        await self._agent.confirm_if_overdue()
        request = ClaimTasks(
            agent_id=str(self._agent.id),
            incarnation=self._agent.incarnation,
            lease_seconds=self._wanted.lease_seconds,
            **self._wanted.filters,
        )
        key = str(uuid7())
        while True:
            try:
                answered = await self._agent.bus.request(request, key=key)
            except ENDED as refusal:
                raise AgentLost(self._agent.id, refusal) from refusal
            except (TimeoutError, Refusal) as failure:
                if isinstance(failure, Refusal) and not failure.retryable:
                    raise
                continue
            if not answered.reply.tasks:
                return None
            task = self._agent.take(answered.reply.tasks[0], self._wanted.lease_seconds)
            with suppress(TaskLost):
                if answered.replayed:
                    await task.renew()  # it was claimed a while ago
                return task
            key = str(uuid7())

    async def _wait(self, most: float) -> None:
        """Wait for a sign that there is something to claim, or until it is time to look."""
        with suppress(TimeoutError):
            async with asyncio.timeout(min(most, self._next_pause())):
                await self._changed.wait()
                self._pause = POLL_FIRST
                await asyncio.sleep(random.uniform(0, SPREAD))  # noqa: S311  spreads load

    def _next_pause(self) -> float:
        pause, self._pause = self._pause, min(2 * self._pause, POLL_MOST)
        return pause * random.uniform(0.5, 1)  # noqa: S311  spreads load

    def look(self, entity: dict[str, Any]) -> None:
        """Look for work if this entity, of which an event tells, can be among what is wanted."""
        filters = self._wanted.filters
        within = all(
            entity.get(name) in {None, str(filters[name])}
            for name in ("initiative_id", "phase_id")
            if name in filters
        )
        if within and entity.get("category") in {None, *filters.get("categories", CATEGORIES)}:
            self._changed.set()


class Lookout:
    """Wakes the iterations of an agent when there may be something to claim."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._watching: WeakSet[Tasks] = WeakSet()
        self._subscribed = False

    async def add(self, tasks: Tasks) -> None:
        """Wake this iteration from now on, for as long as somebody has it."""
        self._watching.add(tasks)
        if self._subscribed:
            return
        self._subscribed = True
        for subject in CLAIMABLE:
            await self._client.subscribe(subject, cb=self._look)
        await flush(self._client)

    async def _look(self, message: Msg) -> None:
        told = pydantic_core.from_json(message.data)
        entity = told.get("task") or told.get("phase") or {}
        for tasks in list(self._watching):
            tasks.look(entity)
