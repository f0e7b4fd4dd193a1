"""The proof that requests are answered, kept in the database: nobody is crashed for an outage.

A process beats when a message has come back through its own subscription and the database has let
it as far as a heartbeat must come. As long as one process beats there is no outage. Where none did
for longer than ``OUTAGE_AFTER``, by the database's clock, what was live when the last one beat has
its full length again from the first beat after it, whichever process that is. Jobs that end what
others may prolong take the last beat for the present: what runs out later is not over yet.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from bus.contract.errors import Unavailable
from bus.running.transaction import CommitUnknown, begin
from bus.storage.database import Database
from bus.storage.outages import LOCK_NOT_AVAILABLE, sqlstate, trouble
from bus.storage.own import pulse as _pulse

log = logging.getLogger("fleetbus.sweeper")

INTERVAL = 0.3
"""Seconds between two beats of a process."""

OUTAGE_AFTER = 1.5
"""Seconds without a beat of any process that are an outage: the shortest lease is twice as long."""

BEAT_TIMEOUT = 5.0
"""Seconds that a beat may take in the database."""

LOCK_TIMEOUT = 1.0
"""Seconds that a beat waits for a lock before it gives its connection back."""


class Liveness:
    """Beats for one process, for as long as it can serve."""

    def __init__(
        self,
        database: Database,
        is_heard: Callable[[], Awaitable[bool]],
        *,
        interval: float = INTERVAL,
    ) -> None:
        self._database = database
        self._is_heard = is_heard
        self._interval = interval
        self._stopped = asyncio.Event()
        self._said = ""

    async def run(self) -> None:
        """Beat until stopped."""
        while not self._stopped.is_set():
            try:
                if await self._is_heard():
                    await self.beat()
                    self._said = ""
            except Exception as error:  # noqa: BLE001  whatever it is, it may be over soon
                self._failed(error)
            await self._pause()

    def stop(self) -> None:
        """End after the beat in hand."""
        self._stopped.set()

    async def beat(self) -> None:
        """Note that this process can answer, and give leases their length after an outage."""
        async with (
            asyncio.timeout(BEAT_TIMEOUT),
            begin(
                self._database,
                left=lambda: BEAT_TIMEOUT,
                lock_timeout=LOCK_TIMEOUT,
                vital=True,
            ) as tx,
        ):
            await _pulse.reach(tx.db)
            restored = await _pulse.beat(tx.db, outage_after=OUTAGE_AFTER)
            await tx.commit()
        if restored is not None and any(restored.counts.values()):
            log.warning(
                "no agent could be heard for %.1f s; leases were restored: %s",
                restored.seconds,
                ", ".join(f"{count} {what}" for what, count in restored.counts.items()),
            )

    def _failed(self, error: Exception) -> None:
        """Say once in a row why it does not beat, unless everybody knows that already."""
        locked = sqlstate(error) == LOCK_NOT_AVAILABLE
        lost = isinstance(error, (TimeoutError, Unavailable, CommitUnknown))
        known = lost or trouble(error) is not None
        if not self._database.available or (known and not locked):
            return
        words = "somebody else's lock" if locked else f"{type(error).__name__}: {error}"
        if words != self._said:
            self._said = words
            log.warning("no lease runs out for now: no agent can be heard, because of %s", words)

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self._interval):
                await self._stopped.wait()
        except TimeoutError:
            return
