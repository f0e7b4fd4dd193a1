"""One handler process: operations, discovery, relay, sweeper and detector."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from nats.aio.msg import Msg

from bus import handling
from bus.contract.catalogue import Catalogue
from bus.handling.dependencies import Provided
from bus.kit.aio import end
from bus.kit.urls import without_secrets
from bus.running.dispatcher import Dispatcher
from bus.running.executor import Executor
from bus.running.published import Published
from bus.running.registry import Registry
from bus.storage.database import Database, describe
from bus.storage.sealed import KeyRing
from fleetbus import domain
from fleetbus.client.connection.answering import ReplyRule
from fleetbus.client.connection.client import SteadyClient
from fleetbus.server import schema
from fleetbus.server.config import VERSION, Settings
from fleetbus.server.discovery.srv import Discovery
from fleetbus.server.figures import FiguresReader
from fleetbus.server.keys import key_ring
from fleetbus.server.process_figures import process_figures
from fleetbus.server.pulse import Pulse
from fleetbus.server.relay.relay import PUBLISHED_SUBJECT, WAKE_SUBJECT, Relay, RelaySettings
from fleetbus.server.relay.stream import StreamSettings, ensure_stream
from fleetbus.server.starting import CannotStart, words
from fleetbus.server.sweeper.liveness import INTERVAL, Liveness
from fleetbus.server.sweeper.sweeper import Sweeper, sweeps
from fleetbus.server.wire.broker import Wire

if TYPE_CHECKING:
    from fleetbus.server.detector.detector import Detector
    from fleetbus.server.detector.settings import DetectorSettings

log = logging.getLogger("fleetbus.service")

WAKE_INTERVAL = 0.005
"""Seconds between two wake-ups that a process sends to the relay."""


BACKGROUND_TIMEOUT = 5.0
"""Seconds that relay, sweeper and detector have to finish the step in hand."""


class Service:
    """Everything that runs in one process; ``start``, then ``stop``."""

    dispatcher: Dispatcher
    client: SteadyClient
    pulse: Pulse

    def __init__(self, settings: Settings, registry: Registry | None = None) -> None:
        self.settings = settings
        self.database = Database(
            settings.database_url, settings.pools, pooler_url=settings.database_pooler_url
        )
        self.published = Published(self.database)
        self.keys = key_ring(settings)
        declared = replace(registry or domain.registry(), strict=settings.strict)
        self.registry = declared.with_provided(self._provided(declared))
        self.replies = ReplyRule(settings.added_reply_prefixes)
        self.wire = Wire(
            settings.nats_servers, replies=self.replies, inbox_prefix=settings.inbox_prefix
        )
        self.relay: Relay | None = None
        self.sweeper: Sweeper | None = None
        self.liveness: Liveness | None = None
        self.figures = FiguresReader(self.database)
        self.draining = False
        self.failed = asyncio.Event()
        """Set when the process cannot go on; whoever started it ends it, with 1."""
        self.detector: Detector | None = None
        self._discovery: Discovery
        self._detecting: asyncio.Task[None]
        self._background: list[asyncio.Task[None]] = []
        self._wake_pending = False

    async def start(self) -> None:
        """Check what is needed, then take requests; once only. Raises ``CannotStart``."""
        if self.draining:
            raise RuntimeError("a service that was stopped cannot be started again: make a new one")
        try:
            await self._check_database()
            self.client = await self._connect()
            await self._check_stream()
            await self._serve()
        except BaseException:
            await self.abandon()
            raise

    async def stop(self) -> bool:
        """Drain, finish, answer, leave; False if something was still in flight at the limit."""
        self.draining = True
        await self.pulse.stop()
        await self._end_detector()
        finished = await self._drain()
        await self._end_background()
        await self.published.close()
        with contextlib.suppress(Exception):
            await self._discovery.stop()
        await self.wire.close()
        await self.figures.close()
        await self.database.close()
        return finished

    async def abandon(self) -> None:
        """Let go of everything at once, after a failed start."""
        await self._end_background()
        await self.published.close()
        with contextlib.suppress(Exception):
            await self.wire.close()
        await self.database.close()

    @property
    def connected(self) -> bool:
        """Whether there is a connection to NATS at this moment."""
        return self.client.is_connected

    def can_serve(self) -> bool:
        """Whether a request that is sent now would come here and be answered, as far as NATS goes.

        ``pulse.last`` says until when that was so.
        """
        return self.connected and self.wire.serving and self.pulse.fresh and not self.draining

    async def is_heard(self) -> bool:
        """The same at this very moment: a message of its own that is sent now comes back."""
        return self.wire.serving and not self.draining and await self.pulse.comes_back()

    def fail(self, why: str) -> None:
        """Have the process ended, for something is wrong with it that only a new one mends."""
        if not self.failed.is_set() and not self.draining:
            log.critical("this process cannot go on: %s", why)
            self.failed.set()

    async def _check_database(self) -> None:
        shown = describe(self.settings.database_url)
        try:
            await self.database.verify()
            await schema.check(self.database.read)
        except schema.SchemaMismatch as error:
            raise CannotStart(str(error)) from None
        except Exception as error:
            raise CannotStart(f"Postgres at {shown} cannot be used: {words(error)}") from error

    async def _connect(self) -> SteadyClient:
        try:
            return await self.wire.connect()
        except Exception as error:
            shown = without_secrets(self.settings.nats_url)
            raise CannotStart(f"NATS at {shown} cannot be reached: {words(error)}") from error

    async def _check_stream(self) -> None:
        if not self.settings.relay:
            return
        try:
            await ensure_stream(self.client.jetstream(), self._stream)
        except Exception as error:
            raise CannotStart(f"the stream {self.settings.stream}: {words(error)}") from error

    async def _serve(self) -> None:
        settings, registry = self.settings, self.registry
        executor = Executor(
            registry,
            self.database,
            settings.executor(),
            committed=self._wake_relay,
            keys=self.keys,
            max_payload=lambda: self.client.max_payload,
        )
        await self.client.subscribe(PUBLISHED_SUBJECT, cb=self._hear)
        self.dispatcher = Dispatcher(registry, executor, settings.limits)
        if settings.relay:
            self.relay = Relay(
                self.database.dedicated,
                self.client,
                RelaySettings(source=settings.source, stream=self._stream),
                self.replies,
            )
            self._background.append(asyncio.create_task(self.relay.run(), name="relay"))
        if settings.sweeper:
            work = sweeps(registry, settings, self.keys)
            self.sweeper = Sweeper(registry, self.database, work, committed=self._wake_relay)
            self._background.append(asyncio.create_task(self.sweeper.run(), name="sweeper"))
        self._discovery = Discovery(
            self.client,
            registry,
            self.dispatcher.stats,
            process=partial(process_figures, self),
            replies=self.replies,
        )
        await self._discovery.start()
        await self.wire.serve(self.dispatcher)
        if (watched := settings.watched) is not None:
            self._detect(watched)
        self.pulse = Pulse(self.client, self.wire.responder, self.fail)
        await self.pulse.start()
        if settings.sweeper:
            often = INTERVAL * min(1, settings.sweep_interval)
            self.liveness = Liveness(self.database, self.is_heard, interval=often)
            self._background.append(asyncio.create_task(self.liveness.run(), name="liveness"))
        for task in (*self._background, self.wire.responder.writer):
            task.add_done_callback(self._background_ended)
        log.info("fleetbus %s serves %d operations", VERSION, len(registry.operations))

    async def _drain(self) -> bool:
        try:
            async with asyncio.timeout(self.settings.stop_timeout):
                await self.wire.drain()
                await self.dispatcher.drained()
                await self.wire.responder.flushed()
        except TimeoutError:
            log.error(  # noqa: TRY400  the traceback of a timeout says nothing
                "stopped with %d requests in flight after %.0f s",
                self.dispatcher.stats.in_flight,
                self.settings.stop_timeout,
            )
            return False
        return True

    def _detect(self, watched: DetectorSettings) -> None:
        from fleetbus.server.detector.detector import Detector

        self.detector = Detector(self.client, self.database, self.dispatcher, watched, self.replies)
        self._detecting = asyncio.create_task(self.detector.run(), name="detector")
        self._background.append(self._detecting)

    async def _end_detector(self) -> None:
        """Let it tell what it has heard while this process, maybe the only one, still serves."""
        if self.detector is not None:
            self.detector.stop()
            await asyncio.wait([self._detecting], timeout=BACKGROUND_TIMEOUT)

    async def _end_background(self) -> None:
        if self.detector is not None:
            self.detector.stop()
        if self.relay is not None:
            self.relay.stop()
        if self.sweeper is not None:
            self.sweeper.stop()
        if self.liveness is not None:
            self.liveness.stop()
        if not self._background:
            return
        _, pending = await asyncio.wait(self._background, timeout=BACKGROUND_TIMEOUT)
        await end(*pending)

    def _background_ended(self, task: asyncio.Task[None]) -> None:
        """What runs as long as the process does has ended before it."""
        error = None if task.cancelled() else task.exception()
        self.fail(f"{task.get_name()} has ended: {error!r}")

    async def _hear(self, announcement: Msg) -> None:
        self.published.heard(announcement.data)

    def _wake_relay(self) -> None:
        """Tell the relay, wherever it is, that something was committed; bursts become one."""
        if self.relay is not None and self.relay.metrics.active:
            self.relay.wake()
        elif not self._wake_pending:
            self._wake_pending = True
            asyncio.get_running_loop().call_later(WAKE_INTERVAL, self._send_wake)

    def _send_wake(self) -> None:
        self._wake_pending = False
        self.wire.responder.notify(WAKE_SUBJECT)

    def _provided(self, registry: Registry) -> Provided:
        """What handlers, reactions and jobs may ask for by annotation."""
        gateways = {
            Catalogue: registry.catalogue,
            KeyRing: self.keys,
            handling.Published: self.published,
        }
        return Provided(gateways, self.settings.provided)

    @property
    def _stream(self) -> StreamSettings:
        return self.settings.events_stream
