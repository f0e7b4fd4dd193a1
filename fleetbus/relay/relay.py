"""The relay: committed events from the outbox into the stream, in order, each once."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from fleetbus.relay.leader import (
    Leader,
    Paging,
    RelayMetrics,
    report_lost_events,
    resumed,
    unsaved,
)
from fleetbus.relay.publisher import FencedPublisher
from fleetbus.relay.stream import StreamSettings, ensure_stream, stored_after
from persistence import _outbox

_logger = logging.getLogger(__name__)

WAKE_SUBJECT: Final = "_fleetbus.outbox"
_WAKES_APART: Final = 0.1


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """How the relay works; times in seconds."""

    source: str = "fleetbus"
    stream: StreamSettings = field(default_factory=StreamSettings)
    page: int = 1000
    lookahead: int = 10_000
    poll_interval: float = 1.0
    step_timeout: float = 30.0
    publish_timeout: float = 5.0


class Relay:
    """One of possibly many; the one that holds the lock in the database is active.

    Takes one connection of the engine for as long as it runs. The client must be one that
    reconnects for ever.
    """

    def __init__(
        self, engine: AsyncEngine, client: Client, settings: RelaySettings | None = None
    ) -> None:
        self.metrics = RelayMetrics()
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._client = client
        self._settings = settings or RelaySettings()
        self._wakened = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._outage = Outage()
        self._stream_reported = False

    def wake(self) -> None:
        """Look at the outbox soon: something was committed."""
        self._wakened.set()

    def stop(self) -> None:
        """End `run` after the page in hand."""
        self._stopping = True
        self._wakened.set()

    async def run(self) -> None:
        """Relay until stopped or cancelled, through outages of the database and of the broker."""
        self._task = asyncio.current_task()
        subscription = await self._client.subscribe(WAKE_SUBJECT, cb=self._woken)
        try:
            while not self._ending:
                await self._try_to_relay()
            if self._cancelled:
                raise asyncio.CancelledError
        finally:
            with suppress(NatsError):
                await subscription.unsubscribe()

    @property
    def _ending(self) -> bool:
        return self._stopping or self._cancelled

    @property
    def _cancelled(self) -> bool:
        """The libraries below turn some cancellations into other errors; the task remembers."""
        return self._task is not None and self._task.cancelling() > 0

    async def _try_to_relay(self) -> None:
        try:
            await self._stand_and_lead()
        except Exception as failure:  # noqa: BLE001 - no failure may end the relay
            if self._ending:
                return
            self.metrics.errors += 1
            self.metrics.last_error = str(failure) or type(failure).__name__
            self._outage.began(failure)
            await self._pause(self._settings.poll_interval)

    async def _woken(self, _: Msg) -> None:
        self.wake()

    async def _stand_and_lead(self) -> None:
        try:
            async with self._session() as conn:
                if await self._stand_by(conn):
                    await self._lead(await self._take_over(conn))
        finally:
            if self.metrics.active:
                self.metrics.active = False
                self.metrics.backlog = self.metrics.backlog_age = None
                await self._hand_over()

    async def _hand_over(self) -> None:
        """Let another relay try for the lock now, not at its next poll."""
        with suppress(NatsError):
            await self._client.publish(WAKE_SUBJECT)

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[AsyncConnection]:
        conn = await self._engine.connect()
        try:
            await _outbox.prepare_relay_session(conn)
            yield conn
        finally:
            # Back in the pool it would keep the lock.
            await conn.invalidate()
            await conn.close()

    async def _stand_by(self, conn: AsyncConnection) -> bool:
        """Wait for the lock; false if stopped before."""
        while not self._ending:
            self._wakened.clear()
            async with asyncio.timeout(self._settings.step_timeout):
                if self._client.is_connected and await _outbox.try_relay_lock(conn):
                    return True
            if self._client.is_connected:
                self._outage.ended("standing by")
            await self._pause(self._settings.poll_interval)
        return False

    async def _take_over(self, conn: AsyncConnection) -> Leader:
        """Continue from the saved state and from what the stream holds beyond it."""
        js = self._client.jetstream()
        info = await ensure_stream(js, self._settings.stream, report=not self._stream_reported)
        self._stream_reported = True
        state = await _outbox.load_relay_state(conn)
        report_lost_events(info, state.stream_sequence)
        cursor = resumed(state)
        stored = unsaved(await stored_after(js, info, state.stream_sequence), cursor)
        publisher = FencedPublisher(
            self._client,
            atomic=bool(info.config.allow_atomic),
            timeout=self._settings.publish_timeout,
        )
        paging = Paging(self._settings.source, self._settings.page, self._settings.lookahead)
        self.metrics.active = True
        self.metrics.takeovers += 1
        return Leader(conn, publisher, paging, self.metrics, cursor, info.state.last_seq, stored)

    async def _lead(self, leader: Leader) -> None:
        measured = 0.0
        while not self._ending:
            self._wakened.clear()
            async with asyncio.timeout(self._settings.step_timeout):
                more = await leader.advance()
                self._outage.ended("relaying")
                if time.monotonic() - measured >= self._settings.poll_interval:
                    await leader.measure()
                    measured = time.monotonic()
            if not more:
                await self._wait(self._settings.poll_interval)

    async def _pause(self, seconds: float) -> None:
        """Wait for a wake-up, but a moment at least: commits must not become a storm of tries."""
        await asyncio.sleep(min(_WAKES_APART, seconds))
        await self._wait(seconds - _WAKES_APART)

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wakened.wait()


class Outage:
    """Says once that something is wrong, and once that it is over."""

    def __init__(self) -> None:
        self._since: float | None = None

    def began(self, failure: Exception) -> None:
        """Note a failure; only the first of an outage is logged as one."""
        if self._since is None:
            self._since = time.monotonic()
            _logger.warning("the relay is interrupted and retries: %r", failure)
        else:
            _logger.debug("the relay is still interrupted: %r", failure)

    def ended(self, now: str) -> None:
        """Note a success."""
        if self._since is not None:
            _logger.info("the relay is %s after %.1f s", now, time.monotonic() - self._since)
            self._since = None
