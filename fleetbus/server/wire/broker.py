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
from nats.aio.msg import Msg

from bus.kit.logs import limited, shown
from bus.kit.nats_io import flush
from bus.running.dispatcher import Dispatcher
from bus.running.registry import Bound
from fleetbus.client.connection.answering import ReplyRule
from fleetbus.client.connection.client import SteadyClient, connect
from fleetbus.server.wire.replies import Responder

log = logging.getLogger("fleetbus.wire")

QUEUE_GROUP = "fleetbus"

UNLIMITED = 2**40
"""What nats-py may keep for a subscription: beyond any limit it would drop without a word. It keeps
what has been read at once only, some hundred KiB; from there on admission counts."""

READ_SIZE = 1024 * 1024
"""Bytes that are read at once: nats-py's 32 KiB cost half as much again for large requests, and a
client that reads too slowly is cut off."""


class _Broker(NatsBroker):
    """A broker with a client of our own, whose callbacks are not those of FastStream.

    FastStream raises what it takes for hopeless out of the callback for errors, which would end a
    reconnection for good.
    """

    def __init__(self, servers: str | list[str], options: dict[str, Any]) -> None:
        # Subscriptions are drained before the broker stops; there is nothing left to wait for.
        super().__init__(logger=None, apply_types=False, serializer=None, graceful_timeout=None)
        self._servers = servers
        self._options = options

    async def _connect(self) -> SteadyClient:
        client = await connect(self._servers, **self._options)
        self.config.connect(client)
        return client


class Wire:
    """The operations of a registry as subscriptions of one NATS connection."""

    def __init__(
        self,
        url: str | list[str],
        *,
        name: str = "fleetbus",
        replies: ReplyRule | None = None,
        inbox_prefix: str | None = None,
    ) -> None:
        self.replies = replies or ReplyRule()
        options: dict[str, Any] = {
            "name": name,
            "inbox_prefix": inbox_prefix,
            "connect_timeout": 5,
            "reconnect_time_wait": 1,
            "error_cb": self._on_error,
            "disconnected_cb": self._on_disconnected,
            "reconnected_cb": self._on_reconnected,
        }
        self.broker = _Broker(url, options)
        self.client: SteadyClient
        self.responder: Responder
        self._subscribers: list[Any] = []
        self._closing = False

    async def connect(self) -> SteadyClient:
        """Connect; raises what nats-py raises when the server cannot be reached."""
        nats_client.DEFAULT_BUFFER_SIZE = READ_SIZE  # pinned by a test
        client = await self.broker.connect()
        assert isinstance(client, SteadyClient)
        self.client = client
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
        """Whether every operation is subscribed, and the server allows it."""
        return (
            bool(self._subscribers)
            and not self.client.refused
            and all(subscriber.subscription is not None for subscriber in self._subscribers)
        )

    async def drain(self) -> None:
        """Stop taking requests; those that the server has sent already are still taken."""
        await asyncio.gather(*(self._drain(subscriber) for subscriber in self._subscribers))

    async def close(self) -> None:
        """Close the connection, also one that is looking for its server."""
        self._closing = True
        if hasattr(self, "responder"):
            await self.responder.close()
        await self.broker.stop()

    async def _on_error(self, error: Exception) -> None:
        # Before there is a connection whoever starts says why there is none.
        level = logging.WARNING if hasattr(self, "client") else logging.DEBUG
        words = shown(str(error) or type(error).__name__)
        limited(log, level, "nats error", "NATS: %s", words)

    async def _on_disconnected(self) -> None:
        if not self._closing:
            log.error("the connection to NATS is lost; reconnecting for as long as it takes")

    async def _on_reconnected(self) -> None:
        log.warning("connected to NATS again")

    def _consumer(self, dispatcher: Dispatcher, bound: Bound) -> Callable[[Msg], Any]:
        respond = self.responder.respond
        subject = bound.subject
        allows = self.replies.allows

        async def consume(message: Msg) -> None:
            reply = message.reply
            if reply and not allows(reply):
                dispatcher.stats.operations[subject].unanswerable += 1
                self.replies.refuse(subject, reply)
                return
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
