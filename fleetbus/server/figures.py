"""What only the database knows: outbox, periodic work, schema, credentials; read seldom."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import NamedTuple

from sqlalchemy import text

from bus.kit.aio import end
from bus.storage import sealed as _sealed
from bus.storage.database import Database
from bus.storage.own import deletions as _deletions
from bus.storage.own import outbox as _outbox
from bus.storage.own import reconciliation as _reconciliation
from bus.storage.own import sweeps as _sweeps
from bus.storage.own.deletions import UnderWay
from bus.storage.own.outbox import Backlog
from bus.storage.own.reconciliation import Verdict
from bus.storage.own.sweeps import LastRun

log = logging.getLogger("fleetbus.monitoring")

MAX_AGE = 1.0
"""Seconds that figures are told again before they are read anew."""

READ_TIMEOUT = 1.0
"""Seconds that anyone waits for them; then they are not known."""

_SERVER = text("SELECT version_num, pg_is_in_recovery() FROM bus.schema_version")


class Figures(NamedTuple):
    """One look at the database."""

    revision: str
    in_recovery: bool
    outbox: Backlog
    jobs: dict[str, LastRun]
    verdict: Verdict | None
    """What the last comparison of stream and outbox found."""
    credentials: dict[str, int]
    """How many credentials each key has written, by the ids of the keys."""
    deletions: UnderWay


class FiguresReader:
    """Looks at the database on a connection of its own, one look at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._found: Figures | None = None
        self._at = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._closed = False

    async def read(self) -> Figures | None:
        """The figures, None where the database does not give them; at most a second old."""
        if self._closed:
            return None
        if self._fresh():
            return self._found
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._refresh())
        # Not awaited itself: who gives up would end it for the others, and a connection to a
        # server that hangs takes its time even to be let go.
        await asyncio.wait({self._reading}, timeout=READ_TIMEOUT)
        return self._found if self._fresh() else None

    async def close(self) -> None:
        """End the look in hand; there is none after it."""
        self._closed = True
        if self._reading is not None:
            await end(self._reading)

    def _fresh(self) -> bool:
        return time.monotonic() - self._at < MAX_AGE

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(READ_TIMEOUT):
                self._found = await self._look()
        except Exception as error:  # noqa: BLE001  whatever it was, the figures are not known
            log.debug("the database gives no figures: %s", error)
            self._found = None
        self._at = time.monotonic()

    async def _look(self) -> Figures:
        async with self._database.watch.connect() as db:
            revision, in_recovery = (await db.execute(_SERVER)).one()
            outbox = await _outbox.backlog(db)
            jobs = await _sweeps.last_runs(db)
            verdict = await _reconciliation.last_verdict(db)
            credentials = await _sealed.count_by_key(db)
            deletions = await _deletions.under_way(db)
            return Figures(revision, in_recovery, outbox, jobs, verdict, credentials, deletions)
