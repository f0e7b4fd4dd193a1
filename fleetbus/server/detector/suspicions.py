"""What becomes of suspicions when their grace is over: crashed, or taken back.

They are in the database, so every process knows all of them and any process can decide them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from bus.contract.operation import Command
from bus.kit.aio import end
from bus.kit.logs import limited
from bus.running.inside import Inside, NotDone
from bus.storage.database import Database
from bus.storage.outages import trouble
from bus.storage.own import pulse as _pulse
from contracts.agents.agents import ConfirmSuspicion, ReinstateAgent
from fleetbus.server.detector.link import Link
from fleetbus.server.detector.servers import Incomplete, Look
from persistence.agents import agent_suspicions as _agent_suspicions
from persistence.agents.agent_suspicions import Suspect

log = logging.getLogger("fleetbus.detector")

LONGEST_POLL = 1.0
"""Seconds between two looks into the database."""

REST = 4
"""Times that a round took, until the next one: with thousands of suspects a round is no trifle."""

AT_ONCE = 16
SUSPECTS_AT_ONCE = 10_000

RETRY_TIME = 10.0
"""Seconds in which a decision is told again while nobody takes it; then it is made anew."""

Suspicion = tuple[UUID, datetime]


class Suspicions:
    """Those of the whole system, as this process knows them."""

    def __init__(
        self, bus: Inside, database: Database, link: Link, *, grace: float, reconnect_time: float
    ) -> None:
        self._bus = bus
        self._database = database
        self._link = link
        self._grace = grace
        self._settling = grace + reconnect_time
        self._poll = min(LONGEST_POLL, grace / 2)
        self._names: set[str] = set()
        self._noted: set[str] = set()
        self._deciding: dict[Suspicion, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(AT_ONCE)
        self._said = ""

    def has(self, name: str) -> bool:
        """Whether the agent of this connection name is suspected, as far as is known here."""
        return name in self._names or name in self._noted

    def note(self, name: str) -> None:
        """Count a name as suspected until the database says more."""
        self._noted.add(name)

    async def run(self) -> None:
        """Decide, until cancelled."""
        try:
            while True:
                began = time.monotonic()
                try:
                    pause = await self._round()
                except Exception as error:
                    if self._database.available and trouble(error) is None:
                        log.exception("suspicions could not be checked")
                    else:
                        self._database.note(error)
                        log.debug("suspicions could not be checked: %s", error)
                    pause = self._poll
                took = time.monotonic() - began
                await asyncio.sleep(max(pause, min(REST * took, self._poll)))
        finally:
            await end(*self._deciding.values())

    async def _round(self) -> float:
        """Read, decide what is due; returns the seconds until there is something to do."""
        suspects = await self._read()
        undecided = [suspect for suspect in suspects if _which(suspect) not in self._deciding]
        due = [suspect for suspect in undecided if suspect.age >= self._grace]
        later = [self._grace - suspect.age for suspect in undecided if suspect.age < self._grace]
        pause = min([self._poll, *later])
        if not due:
            return pause
        try:
            look = await self._link.look()
        except Incomplete as error:
            self._say(str(error))
            return self._poll
        self._said = ""
        if (left := await self._unsettled(look)) > 0:
            return min(left, self._poll)
        self._decide(due, look)
        return pause

    async def _read(self) -> list[Suspect]:
        noted, self._noted = self._noted, set()
        async with self._database.connection(read_only=True, vital=True) as db:
            suspects = await _agent_suspicions.suspects(db, limit=SUSPECTS_AT_ONCE)
        self._names = noted | {suspect.connection_name for suspect in suspects}
        return suspects

    async def _unsettled(self, look: Look) -> float:
        """Seconds that clients may still need to come back after NATS, or all of us, were away."""
        uptime = look.youngest
        if self._link.restored_at is not None:
            uptime = min(uptime, time.monotonic() - self._link.restored_at)
        async with self._database.connection(read_only=True, vital=True) as db:
            since = await _pulse.since_outage(db)
        return self._settling - (uptime if since is None else min(uptime, since))

    def _decide(self, due: Sequence[Suspect], look: Look) -> None:
        for suspect in due:
            live = suspect.connection_name in look.names
            task = asyncio.create_task(self._settle(suspect, live=live))
            self._deciding[_which(suspect)] = task

    async def _settle(self, suspect: Suspect, *, live: bool) -> None:
        """Tell what is true of a suspect. Every process may: the key is the suspicion."""
        operation = _reinstate(suspect) if live else _confirm(suspect)
        key = f"{operation.declared.subject}:{suspect.id}:{suspect.suspected_at.isoformat()}"
        try:
            async with self._places:
                await self._bus.call(operation, key=key, timeout=RETRY_TIME)
        except NotDone as error:
            said = "the suspicion of agent %s could not be settled: %s"
            limited(log, error.level, "suspicions", said, suspect.id, error)
        finally:
            del self._deciding[_which(suspect)]

    def _say(self, why: str) -> None:
        """Say once why nothing can be decided."""
        if why != self._said:
            self._said = why
            log.warning("suspicions wait: %s", why)


def _reinstate(suspect: Suspect) -> Command[Any]:
    return ReinstateAgent(connection_name=suspect.connection_name)


def _confirm(suspect: Suspect) -> Command[Any]:
    return ConfirmSuspicion(id=suspect.id, suspected_at=suspect.suspected_at)


def _which(suspect: Suspect) -> Suspicion:
    return suspect.id, suspect.suspected_at
