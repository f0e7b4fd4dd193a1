"""The relay: committed events from the outbox into the stream, in order, each once."""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from bus.storage.own import outbox as _outbox
from fleetbus.client.connection.answering import ReplyRule
from fleetbus.server.relay import limits
from fleetbus.server.relay.comparison import Comparison, TimelineConflict
from fleetbus.server.relay.leader import Leader, Paging, resumed
from fleetbus.server.relay.metrics import RelayMetrics
from fleetbus.server.relay.outage import Outage
from fleetbus.server.relay.publisher import FencedPublisher
from fleetbus.server.relay.reconciler import (
    Reconciler,
    announcement,
    has_lost,
    note_conflict,
    recheck_conflict,
)
from fleetbus.server.relay.refusals import remedy
from fleetbus.server.relay.stream import StreamSettings, ensure_stream
from fleetbus.server.relay.tail import Tail

_logger = logging.getLogger("fleetbus.relay")

WAKE_SUBJECT: Final = "_fleetbus.outbox"
PUBLISHED_SUBJECT: Final = "_fleetbus.published"
"""Where the active relay says how far the stream has the outbox."""
RECONCILE_SUBJECT: Final = "_fleetbus.reconcile"
"""Where the active relay is asked to compare the stream with the outbox."""
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
    watch_interval: float = 10.0
    reconcile_interval: float = 3600.0


class Relay:
    """One of possibly many; the one that holds the lock in the database is active.

    Takes one connection of the engine for as long as it runs. The client must be one that
    reconnects for ever.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        client: Client,
        settings: RelaySettings | None = None,
        replies: ReplyRule | None = None,
    ) -> None:
        self.metrics = RelayMetrics()
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._client = client
        self._settings = settings or RelaySettings()
        self._replies = replies or ReplyRule()
        self._wakened = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._outage = Outage()
        self._stream_reported = False
        self._reconciler: Reconciler | None = None
        self._conflict = ""
        self._measured = self._watched = -math.inf

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
        subscriptions = [
            await self._client.subscribe(WAKE_SUBJECT, cb=self._woken),
            await self._client.subscribe(RECONCILE_SUBJECT, cb=self._asked_to_reconcile),
        ]
        try:
            while not self._ending:
                await self._try_to_relay()
            if self._cancelled:
                raise asyncio.CancelledError
        finally:
            for subscription in subscriptions:
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
        except TimelineConflict as conflict:
            self._stop_for(conflict)
            await self._pause(self._settings.poll_interval)
        except Exception as failure:  # noqa: BLE001 - no failure may end the relay
            if self._ending:
                return
            self.metrics.errors += 1
            self.metrics.last_error = str(failure) or type(failure).__name__
            self.metrics.trouble = f"{self.metrics.last_error}; {remedy(failure)}"
            self._outage.began(failure)
            await self._pause(self._settings.poll_interval)

    def _stop_for(self, conflict: TimelineConflict) -> None:
        """Say once that nothing is published. It is looked at again: a person may have decided."""
        self.metrics.errors += 1
        if str(conflict) != self._conflict:
            self._conflict = str(conflict)
            _logger.error(
                "the relay publishes nothing: %s; see `fleetbus events accept-timeline`", conflict
            )

    async def _woken(self, _: Msg) -> None:
        self.wake()

    async def _asked_to_reconcile(self, request: Msg) -> None:
        """Only the active relay answers; without being told where to, it does so all the same."""
        if request.reply and not self._replies.allows(request.reply):
            self._replies.refuse(RECONCILE_SUBJECT, request.reply)
        elif self._reconciler is not None:
            self._reconciler.ask()
            self.wake()
            if request.reply:
                await self._client.publish(request.reply, b"{}")

    async def _stand_and_lead(self) -> None:
        try:
            async with self._session() as conn:
                if await self._stand_by(conn):
                    await self._lead_or_stop(conn)
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

    async def _lead_or_stop(self, conn: AsyncConnection) -> None:
        try:
            await self._lead(await self._take_over(conn))
        except TimelineConflict as conflict:
            await note_conflict(conn, conflict)
            raise

    async def _take_over(self, conn: AsyncConnection) -> Reconciler:
        """Continue from the saved state and from what the stream holds beyond it."""
        js, settings = self._client.jetstream(), self._settings
        info = await ensure_stream(js, settings.stream, report=not self._stream_reported)
        self._stream_reported = True
        if await limits.apply(self._client, info, settings.stream.limits):
            info = await js.stream_info(settings.stream.name)
        state = await _outbox.load_relay_state(conn)
        beyond = Comparison(conn, js, info, self._client)
        async for _ in beyond.read_stream(state.stream_sequence, state=state):
            pass
        await recheck_conflict(conn, js, info)
        publisher = FencedPublisher(
            self._client,
            atomic=bool(info.config.allow_atomic),
            strict=True,
            timeout=settings.publish_timeout,
        )
        tail = Tail(
            conn,
            self._client,
            publisher,
            info,
            settings.source,
            self.metrics,
            own=min(beyond.last_own or state.stream_sequence, info.state.last_seq),
            stored=beyond.seen,
            foreign=beyond.foreign,
        )
        leader = Leader(
            conn,
            tail,
            Paging(settings.page, settings.lookahead),
            self.metrics,
            resumed(state),
            saved_sequence=state.stream_sequence,
        )
        reconciler = Reconciler(
            leader, js, info, settings.reconcile_interval, settings.poll_interval
        )
        if await has_lost(conn, js, info, state):
            await reconciler.finish()
        return reconciler

    async def _lead(self, reconciler: Reconciler) -> None:
        leader = reconciler.leader
        self._conflict = ""
        self._reconciler = reconciler
        self.metrics.active = True
        self.metrics.takeovers += 1
        try:
            while not self._ending:
                self._wakened.clear()
                async with asyncio.timeout(self._settings.step_timeout) as left:
                    leader.progressed = partial(self._prolong, left)
                    more = await self._advance(leader)
                    more |= await reconciler.step()
                    self._outage.ended("relaying")
                    self.metrics.trouble = ""
                    await self._look_around(reconciler)
                if not more:
                    await self._wait(self._settings.poll_interval)
        finally:
            self._reconciler = None
            await reconciler.close()

    def _prolong(self, left: asyncio.Timeout) -> None:
        """Some of a large page is published: what follows may take as long again."""
        left.reschedule(asyncio.get_running_loop().time() + self._settings.step_timeout)

    async def _advance(self, leader: Leader) -> bool:
        before = leader.cursor
        more = await leader.advance()
        if leader.cursor != before:
            await self._client.publish(PUBLISHED_SUBJECT, announcement(leader))
        return more

    async def _look_around(self, reconciler: Reconciler) -> None:
        """Measure the backlog and watch the stream, each now and then."""
        now = time.monotonic()
        if now - self._measured >= self._settings.poll_interval:
            await reconciler.leader.measure()
            self._measured = now
        if now - self._watched >= self._settings.watch_interval:
            await reconciler.watch()
            self._watched = now

    async def _pause(self, seconds: float) -> None:
        """Wait for a wake-up, but a moment at least: commits must not become a storm of tries."""
        await asyncio.sleep(min(_WAKES_APART, seconds))
        await self._wait(seconds - _WAKES_APART)

    async def _wait(self, seconds: float) -> None:
        if self._ending:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wakened.wait()
