"""Crashes from the bus: an agent whose connection is gone is suspected, and soon decided on.

Every process listens; what it hears and decides goes through ``db.agents`` operations that take
effect once. Without this, or while it does not work, only leases reveal crashes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

import pydantic_core
from nats.aio.client import Client
from nats.aio.msg import Msg

from bus.kit.aio import end
from bus.running.dispatcher import Dispatcher
from bus.running.inside import Inside
from bus.storage.database import Database
from fleetbus.client.connection.answering import ReplyRule
from fleetbus.server.detector.link import Link
from fleetbus.server.detector.reports import Reports
from fleetbus.server.detector.settings import DetectorSettings
from fleetbus.server.detector.suspicions import Suspicions

log = logging.getLogger("fleetbus.detector")

ASK_SUBJECT = "_fleetbus.detector"
"""Each process with a detector answers here whether it hears anything."""

CALLER = "detector"
"""In whose space the keys of its commands lie: all processes share it, nobody else reaches it."""

ATTEMPT_TIMEOUT = 1.0
"""Seconds after which a command is given again."""

FINISH_TIME = 1.0
"""Seconds in which a stopping process tells what it has heard."""


class Detector:
    """The detector of one process; ``run`` it, then ``stop``."""

    def __init__(
        self,
        fleet: Client,
        database: Database,
        dispatcher: Dispatcher,
        settings: DetectorSettings,
        replies: ReplyRule | None = None,
    ) -> None:
        bus = Inside(dispatcher, CALLER, attempt_timeout=ATTEMPT_TIMEOUT)
        self._fleet = fleet
        self._replies = replies or ReplyRule()
        self._stopped = asyncio.Event()
        self.link = Link(fleet, settings.account)
        self._suspicions = Suspicions(
            bus,
            database,
            self.link,
            grace=settings.grace,
            reconnect_time=settings.reconnect_time,
        )
        self._reports = Reports(
            bus,
            database,
            is_suspected=self._suspicions.has,
            suspected=self._suspicions.note,
        )

    async def run(self) -> None:
        """Work until stopped; what is heard by then is told first."""
        asked = await self._fleet.subscribe(ASK_SUBJECT, cb=self._on_asked)
        parts = [
            asyncio.create_task(self.link.run(self._reports.add), name="detector-link"),
            asyncio.create_task(self._suspicions.run(), name="detector-suspicions"),
            asyncio.create_task(self._reports.run(), name="detector-reports"),
        ]
        stopped = asyncio.create_task(self._stopped.wait())
        try:
            done, _ = await asyncio.wait([*parts, stopped], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopped}:
                task.result()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FINISH_TIME):
                    await self._reports.finished()
        except Exception:
            log.exception("crash detection from the bus has ended; only leases reveal crashes")
        finally:
            await end(stopped, *parts)
            with contextlib.suppress(Exception):
                await asked.unsubscribe()

    def stop(self) -> None:
        """End soon."""
        self._stopped.set()

    async def _on_asked(self, message: Msg) -> None:
        if not self._replies.allows(message.reply):
            self._replies.refuse(ASK_SUBJECT, message.reply)
            return
        answer = {"trouble": self.link.trouble}
        await self._fleet.publish(message.reply, pydantic_core.to_json(answer))
