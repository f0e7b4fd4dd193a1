"""Tells the agents of what was heard: ``db.agents.suspect`` and ``db.agents.reinstate``.

Every process hears every fact. The idempotency key is the connection, so a fact takes effect once,
whichever process is first. Of a name only the last fact counts: where thousands lose their
connection and come back at once, most of it need not be told.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from bus.kit.aio import end
from bus.kit.logs import limited, shown
from bus.running.inside import Inside, NotDone
from bus.storage.database import Database
from contracts.agents.agents import ReinstateAgent, SuspectAgent
from fleetbus.server.detector.advisories import Fact
from persistence.agents import agent_suspicions as _agent_suspicions

log = logging.getLogger("fleetbus.detector")

AT_ONCE = 16
"""Calls of a process at once, however many connections come and go."""

NAMES_AT_ONCE = 1_000

RETRY_TIME = 30.0
"""Seconds in which a fact is told again while nobody takes it; after them there are leases."""

RETRY_INTERVAL = 0.2


class Reports:
    """The facts that are still to be told, by the name of the connection."""

    def __init__(
        self,
        bus: Inside,
        database: Database,
        *,
        is_suspected: Callable[[str], bool],
        suspected: Callable[[str], None],
    ) -> None:
        self._bus = bus
        self._database = database
        self._is_suspected = is_suspected
        self._suspected = suspected
        self._facts: dict[str, deque[Fact]] = {}
        self._unknown: deque[str] = deque()
        self._wake = asyncio.Event()
        self._places = asyncio.Semaphore(AT_ONCE)
        self._reporting: set[asyncio.Task[None]] = set()

    def add(self, fact: Fact) -> None:
        """Take a fact; that a connection came matters only to whom one was missed of."""
        if (waiting := self._facts.get(fact.name)) is not None:
            waiting.append(fact)
        elif fact.gone or self._is_suspected(fact.name):
            self._facts[fact.name] = deque([fact])
            self._unknown.append(fact.name)
            self._wake.set()

    async def finished(self) -> None:
        """Wait until everything has been told."""
        while self._facts:  # noqa: ASYNC110  several tasks take from it, for at most a second
            await asyncio.sleep(0.01)

    async def run(self) -> None:
        """Tell, until cancelled."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._unknown:
                    await self._sort_out()
        finally:
            await end(*self._reporting)

    async def _sort_out(self) -> None:
        """Most connections belong to no agent; one indexed read tells which do."""
        count = min(len(self._unknown), NAMES_AT_ONCE)
        names = [self._unknown.popleft() for _ in range(count)]
        known = {name: len(self._facts[name]) for name in names}
        living = await self._living(names)
        for name in names:
            if name in living:
                self._start_report(name)
            elif len(self._facts[name]) == known[name]:
                del self._facts[name]
            else:
                self._unknown.append(name)

    async def _living(self, names: list[str]) -> set[str]:
        end = asyncio.get_running_loop().time() + RETRY_TIME
        while True:
            try:
                async with self._database.connection(read_only=True, vital=True) as db:
                    return await _agent_suspicions.living(db, names)
            except Exception as error:  # noqa: BLE001  whatever it is, it may be over soon
                if asyncio.get_running_loop().time() > end:
                    said = "%d lost connections were not checked: %s"
                    limited(log, logging.WARNING, "lost connections", said, len(names), error)
                    return set()
            await asyncio.sleep(RETRY_INTERVAL)

    def _start_report(self, name: str) -> None:
        task = asyncio.create_task(self._report_all(name), name=f"detector-{name}")
        self._reporting.add(task)
        task.add_done_callback(self._reporting.discard)

    async def _report_all(self, name: str) -> None:
        facts = self._facts[name]
        try:
            while facts:
                async with self._places:
                    fact = facts[-1]
                    facts.clear()
                    if fact.gone or self._is_suspected(name):
                        await self._report(fact)
        finally:
            del self._facts[name]

    async def _report(self, fact: Fact) -> None:
        operation: SuspectAgent | ReinstateAgent
        if fact.gone:
            self._suspected(fact.name)
            operation = SuspectAgent(connection_name=fact.name)
        else:
            operation = ReinstateAgent(connection_name=fact.name)
        key = f"{operation.declared.subject}:{fact.connection}"
        try:
            await self._bus.call(operation, key=key, timeout=RETRY_TIME)
        except NotDone as error:
            said = "the connection %s could not be reported: %s"
            limited(log, error.level, "lost connections", said, shown(fact.name), error)
