"""FastStream's broker, with subscribers that hand the raw message to the dispatcher.

FastStream keeps the connection, the queue group and the lifecycle. Its own way from message to
function (one message at a time, or 160 µs of CPU each) is left out: ``consume`` is replaced.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from faststream.nats import NatsBroker
from nats.aio import client as nats_client
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from fleetbus.bus.dispatcher import Dispatcher
from fleetbus.bus.registry import Bound
from fleetbus.flushing import flush
from fleetbus.wire.frames import parse_header_lines
from fleetbus.wire.replies import Responder

log = logging.getLogger("fleetbus.wire")

QUEUE_GROUP = "fleetbus"

CONNECT_ATTEMPTS = 1
"""Attempts on each server before a first connection is given up."""

UNLIMITED = 2**40
"""What nats-py may keep for a subscription: beyond any limit it would drop without a word. It keeps
what has been read at once only, some hundred KiB; from there on admission counts."""


READ_SIZE = 1024 * 1024
"""Bytes that are read at once: nats-py's 32 KiB cost half as much again for large requests, and a
client that reads too slowly is cut off."""


class Wire:
    """The operations of a registry as subscriptions of one NATS connection."""

    def __init__(self, url: str | list[str], *, name: str = "fleetbus") -> None:
        self.broker = NatsBroker(
            url,
            name=name,
            logger=None,
            apply_types=False,
            serializer=None,
            connect_timeout=5,
            reconnect_time_wait=1,
            max_reconnect_attempts=CONNECT_ATTEMPTS,
            # Subscriptions are drained before the broker stops; there is nothing left to wait for.
            graceful_timeout=None,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
        )
        self.client: Client
        self.responder: Responder
        self._subscribers: list[Any] = []
        self._closing = False

    async def connect(self) -> Client:
        """Connect; raises what nats-py raises when the server cannot be reached."""
        nats_client.DEFAULT_BUFFER_SIZE = READ_SIZE  # pinned by a test
        self.client = await self.broker.connect()
        # With -1 from the start, nats-py would try for ever to reach a server that is not there.
        self.client.options["max_reconnect_attempts"] = -1
        self.client._parse_header_lines = parse_header_lines  # type: ignore[method-assign]  # noqa: SLF001  pinned by a test
        self.responder = Responder(self.client)
        return self.client

    async def serve(self, dispatcher: Dispatcher) -> None:
        """Subscribe every operation with the queue group."""
        function: Any = _placeholder
        for bound in dispatcher.registry.operations.values():
            subscriber = self.broker.subscriber(
                bound.subject,
                queue=QUEUE_GROUP,
                pending_msgs_limit=UNLIMITED,
                pending_bytes_limit=UNLIMITED,
            )
            function = subscriber(function)
            subscriber.consume = self._consumer(dispatcher, bound)  # type: ignore[assignment, method-assign]  # pinned by a test
            self._subscribers.append(subscriber)
        await self.broker.start()
        await flush(self.client)

    @property
    def serving(self) -> bool:
        """Whether every operation is subscribed."""
        return bool(self._subscribers) and all(
            subscriber.subscription is not None for subscriber in self._subscribers
        )

    async def drain(self) -> None:
        """Stop taking requests; those that the server has sent already are still taken."""
        await asyncio.gather(*(self._drain(subscriber) for subscriber in self._subscribers))

    async def close(self) -> None:
        """Close the connection, also one that is looking for its server."""
        self._closing = True
        if hasattr(self, "responder"):
            await self.responder.close()
        try:
            await self.broker.stop()
        except NatsError as error:
            # It wants to drain what the server has sent; where there is none, nothing is lost.
            log.info("NATS: %s", error)
            await self.client.close()

    async def _on_error(self, error: Exception) -> None:
        log.info("NATS: %s", str(error) or type(error).__name__)

    async def _on_disconnected(self) -> None:
        if not self._closing:
            log.error("the connection to NATS is lost; reconnecting for as long as it takes")

    async def _on_reconnected(self) -> None:
        log.warning("connected to NATS again")

    def _consumer(self, dispatcher: Dispatcher, bound: Bound) -> Callable[[Msg], Any]:
        respond = self.responder.respond
        subject = bound.subject

        async def consume(message: Msg) -> None:
            reply = message.reply
            dispatcher.accept(
                bound,
                message.data,
                message.headers or _NO_HEADERS,
                lambda answer: respond(subject, reply, answer),
                reply,
            )

        return consume

    async def _drain(self, subscriber: Any) -> None:
        subscription, subscriber.subscription = subscriber.subscription, None
        if subscription is not None and self.client.is_connected:
            await subscription.drain()


_NO_HEADERS: dict[str, str] = {}


async def _placeholder(_: bytes) -> None:
    """FastStream subscribes only what has a function; messages never come here."""
