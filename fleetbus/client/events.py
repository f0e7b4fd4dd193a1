"""Typed events as the client reads them, plainly or through a durable consumer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from bus.contract.event import EVENTS, Event
from bus.kit.logs import limited, shown
from bus.kit.nats_io import flush
from fleetbus import domain
from fleetbus.client.connection.foreign import is_event, position_of

log = logging.getLogger("fleetbus.client")

E = TypeVar("E", bound=Event)

FETCH = 100
"""Events that a durable reader asks for at once."""

FETCH_TIMEOUT = 5.0


@dataclass(frozen=True)
class Delivery(Generic[E]):
    """An event with its CloudEvents attributes."""

    event: E
    id: str
    type: str
    entity_id: str
    time: datetime
    position: int
    cause: str | None


class Events(Generic[E]):
    """An endless iteration over events; as a context manager it has subscribed on entry."""

    def __init__(
        self,
        client: Client,
        kinds: tuple[type[E], ...],
        *,
        entity: object | None,
        durable: str | None,
        stream: str,
    ) -> None:
        self._client = client
        self._durable = durable
        self._stream = stream
        self._subjects = subjects(kinds, entity)
        self._subscriptions: list[Any] = []
        self._arrived: asyncio.Queue[Msg] = asyncio.Queue()
        self._fetched: list[Msg] = []
        self._unacknowledged: Msg | None = None
        self._kinds: Mapping[str, type[Event]] = {kind.fact.type: kind for kind in kinds}

    async def __aenter__(self) -> Self:
        await self._subscribe()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E:
        return (await self.delivery()).event

    async def delivery(self) -> Delivery[E]:
        """The next event with its attributes; the one before counts as handled."""
        await self._subscribe()
        if self._unacknowledged is not None:
            await self._unacknowledged.ack()
            self._unacknowledged = None
        while True:
            message = await self._next()
            if (found := _read(message, self._kinds)) is not None:
                return found
            if self._durable:
                await message.ack()

    async def close(self) -> None:
        """Stop reading; the last event comes again, as no other one was asked for after it."""
        unhandled = [*filter(None, [self._unacknowledged]), *self._fetched]
        for message in unhandled:
            with contextlib.suppress(Exception):
                await message.nak()
        self._unacknowledged, self._fetched = None, []
        for subscription in self._subscriptions:
            with contextlib.suppress(Exception):
                await subscription.unsubscribe()
        self._subscriptions.clear()

    async def _subscribe(self) -> None:
        if self._subscriptions:
            return
        if not self._kinds:
            # All contracts are imported for all events, beside whatever else is going on.
            await asyncio.to_thread(domain.catalogue)
            self._kinds = EVENTS
        if self._durable is None:
            for subject in self._subjects:
                subscription = await self._client.subscribe(subject, cb=self._arrived.put)
                self._subscriptions.append(subscription)
            await flush(self._client)
            return
        config = ConsumerConfig(
            durable_name=self._durable,
            ack_policy=AckPolicy.EXPLICIT,
            deliver_policy=DeliverPolicy.ALL,
            filter_subjects=self._subjects,
        )
        js = self._client.jetstream()
        await js.add_consumer(self._stream, config)
        self._subscriptions.append(
            await js.pull_subscribe_bind(durable=self._durable, stream=self._stream)
        )

    async def _next(self) -> Msg:
        if self._durable is None:
            return await self._arrived.get()
        while not self._fetched:
            with contextlib.suppress(TimeoutError):
                self._fetched = await self._subscriptions[0].fetch(FETCH, timeout=FETCH_TIMEOUT)
        self._unacknowledged = self._fetched.pop(0)
        return self._unacknowledged


def subjects(kinds: tuple[type[Event], ...], entity: object | None) -> list[str]:
    """The subjects of events of these types, of one entity if given."""
    last = "*" if entity is None else str(getattr(entity, "id", entity))
    if not kinds:
        return [f"events.*.*.{last}"]
    return [f"events.{kind.fact.type}.{last}" for kind in kinds]


def _read(message: Msg, kinds: Mapping[str, type[Event]]) -> Delivery[Any] | None:
    """The event of a message; None where it is of an unknown type, or no event of ours."""
    event_type = header(message, "ce-type")
    if event_type not in kinds or not is_event(message.headers):
        return None
    try:
        return delivered(message, kinds[event_type])
    except ValueError as error:
        kind, said = "foreign event", "a message on %s is not an event: %s"
        limited(log, logging.WARNING, kind, said, shown(message.subject), type(error).__name__)
        return None


def delivered(message: Msg, kind: type[Any]) -> Delivery[Any]:
    """A message from the stream as a delivery."""
    return Delivery(
        event=kind.model_validate_json(message.data),
        id=header(message, "ce-id"),
        type=header(message, "ce-type"),
        entity_id=header(message, "ce-subject"),
        time=datetime.fromisoformat(header(message, "ce-time")),
        position=position_of(message.headers) or 0,
        cause=header(message, "Fleet-Cause") or None,
    )


def header(message: Msg, name: str) -> str:
    """A header of a message, empty where it is absent."""
    return (message.headers or {}).get(name, "")
