"""The sign of life of an agent: heartbeats for as long as it runs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from nats.errors import Error as NatsError

from bus.contract.errors import InvalidTransition
from bus.contract.fields import JsonObject
from bus.contract.refusals import Refusal
from contracts.agents.agents import (
    Agent,
    AgentNotFound,
    Heartbeat,
    HeartbeatReply,
    StaleIncarnation,
)
from fleetbus.client.errors import AgentLost
from fleetbus.client.words import is_too_much

if TYPE_CHECKING:
    from fleetbus.client.calling import Caller

log = logging.getLogger("fleetbus.worker")

LEASE_INTERVALS = 3
"""For how many intervals a heartbeat holds."""

ATTEMPT_SECONDS = 5.0
"""How long one heartbeat waits for its answer at most."""

AFTER_FAILURE = 0.2
"""Seconds between a heartbeat that was refused for no reason of ours and the next."""

ENDED = (AgentNotFound, InvalidTransition, StaleIncarnation)
"""Refusals that say: this process is no longer that agent."""


class Heart:
    """Beats once per interval, and at once when it is asked to.

    One heartbeat waits for its answer for half an interval at most, so that several can fail
    before the lease is over.
    """

    def __init__(self, bus: Caller, agent: Agent) -> None:
        self._bus = bus
        self._agent = agent
        self._attempt = min(ATTEMPT_SECONDS, agent.heartbeat_interval_s / 2)
        self._beating = asyncio.Lock()
        self._wanted = asyncio.Event()
        self._progress: JsonObject | None = None
        self._heard = time.monotonic()

    @property
    def has_news(self) -> bool:
        """Whether there is progress that was not reported."""
        return self._progress is not None

    @property
    def overdue(self) -> bool:
        """Whether the lease is over, by the clock of this process."""
        lease = self._agent.heartbeat_interval_s * LEASE_INTERVALS
        return time.monotonic() - self._heard >= lease

    def progress(self, progress: JsonObject) -> None:
        """Report this with the next heartbeat, in place of progress that was not reported yet."""
        self._progress = self._heartbeat(progress=progress).progress

    def beat_now(self) -> None:
        """Do not wait for the next interval: something may have happened to the agent."""
        self._wanted.set()

    async def run(self, told: Callable[[HeartbeatReply], None]) -> None:
        """Beat until cancelled, or until ``AgentLost`` is raised."""
        while True:
            left = self._heard + self._agent.heartbeat_interval_s - time.monotonic()
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._wanted.wait()
            told(await self.beat())

    async def beat(self) -> HeartbeatReply:
        """One heartbeat, repeated until it is answered. Raises ``AgentLost``."""
        async with self._beating:
            self._wanted.clear()
            while True:
                if (reply := await self._try()) is not None:
                    return reply

    async def _try(self) -> HeartbeatReply | None:
        began = time.monotonic()
        progress, self._progress = self._progress, None
        fields = {} if progress is None else {"progress": progress}
        reply = None
        try:
            # Without a key: there are many heartbeats, and a stored reply would prolong nothing.
            answered = await self._bus.request(
                self._heartbeat(**fields), timeout=self._attempt, keyed=False
            )
            reply, self._heard = answered.reply, began
        except ENDED as refusal:
            raise AgentLost(self._agent.id, refusal) from refusal
        except (TimeoutError, Refusal, NatsError) as failure:
            log.warning("heartbeat of agent %s: %s", self._agent.id, failure)
            if is_too_much(failure):
                progress = None  # it would be refused for ever, and the agent taken for dead
            await asyncio.sleep(AFTER_FAILURE)
        finally:
            if reply is None and self._progress is None:
                self._progress = progress
        return reply

    def _heartbeat(self, **fields: Any) -> Heartbeat:
        return Heartbeat(id=self._agent.id, incarnation=self._agent.incarnation, **fields)
