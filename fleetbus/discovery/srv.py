"""Answers ``$SRV.PING``, ``INFO`` and ``STATS`` (ADR-32): one NATS service per context.

Each service is asked for by its own name and id, so that a request for one that does not exist
has no responders, which the caller learns at once, and not a timeout.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import pydantic_core
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.nuid import NUID

from contracts._catalogue import Context
from contracts._declare import Declared
from fleetbus.bus.registry import Registry
from fleetbus.bus.stats import OperationStats, Stats
from fleetbus.config import VERSION
from fleetbus.wire.broker import QUEUE_GROUP

log = logging.getLogger("fleetbus.discovery")

Verb = Literal["PING", "INFO", "STATS"]

PREFIX = "$SRV"

_RELEASE = re.compile(r"(?:\d+!)?(\d+)(?:\.(\d+))?(?:\.(\d+))?(.*)")


class ContextService:
    """One context as a NATS service: what it answers."""

    def __init__(self, context: Context, stats: Stats, version: str) -> None:
        self.name = context.name
        self.id = NUID().next().decode()
        self._identity = {
            "name": self.name,
            "id": self.id,
            "version": version,
            "metadata": {},
        }
        self._context = context
        self._stats = stats
        self._answers: dict[str, Callable[[], dict[str, Any]]] = {
            "PING": self.ping,
            "INFO": self.info,
            "STATS": self.stats,
        }

    def answer(self, verb: str) -> bytes | None:
        """The answer to a verb, None where there is none."""
        if (make := self._answers.get(verb)) is None:
            return None
        return pydantic_core.to_json(make())

    def ping(self) -> dict[str, Any]:
        """That it is there."""
        return {"type": "io.nats.micro.v1.ping_response", **self._identity}

    def info(self) -> dict[str, Any]:
        """What it offers."""
        return {
            "type": "io.nats.micro.v1.info_response",
            **self._identity,
            "description": self._context.summary,
            "endpoints": [
                {**_endpoint(o.declared), "metadata": _metadata(o.declared)}
                for o in self._context.operations
            ],
        }

    def stats(self) -> dict[str, Any]:
        """What it has done since it was started."""
        operations = self._stats.operations
        return {
            "type": "io.nats.micro.v1.stats_response",
            **self._identity,
            "started": self._stats.started.isoformat().replace("+00:00", "Z"),
            "endpoints": [
                {**_endpoint(o.declared), **_figures(operations[o.declared.subject])}
                for o in self._context.operations
            ],
        }


class Discovery:
    """The services of a process on one connection; ``start``, then ``stop``."""

    def __init__(
        self, client: Client, registry: Registry, stats: Stats, *, version: str = VERSION
    ) -> None:
        self._client = client
        self.services = tuple(
            ContextService(context, stats, semantic_version(version))
            for context in registry.catalogue.contexts
            if context.operations
        )
        self._subscriptions: list[Subscription] = []

    async def start(self) -> None:
        """Subscribe; when this returns the server knows of it."""
        await self._subscribe(f"{PREFIX}.*", self.services)
        for service in self.services:
            await self._subscribe(f"{PREFIX}.*.{service.name}", (service,))
            await self._subscribe(f"{PREFIX}.*.{service.name}.{service.id}", (service,))
        await self._client.flush()

    async def stop(self) -> None:
        """Leave; what the server has sent already is still answered."""
        subscriptions, self._subscriptions = self._subscriptions, []
        await asyncio.gather(*(self._leave(subscription) for subscription in subscriptions))

    async def _subscribe(self, subject: str, services: tuple[ContextService, ...]) -> None:
        subscription = await self._client.subscribe(subject, cb=partial(self._answer, services))
        self._subscriptions.append(subscription)

    async def _leave(self, subscription: Subscription) -> None:
        if self._client.is_closed or self._client.is_draining:
            return
        if self._client.is_connected:
            await subscription.drain()  # type: ignore[no-untyped-call]  # nats-py has no annotation here
        else:
            await subscription.unsubscribe()  # or a reconnect would subscribe it again

    async def _answer(self, services: tuple[ContextService, ...], request: Msg) -> None:
        """Each of these services replies; whatever goes wrong, the next request is answered."""
        verb = request.subject.split(".")[1]
        if not request.reply:
            return
        for service in services:
            try:
                if (answer := service.answer(verb)) is not None:
                    await self._client.publish(request.reply, answer)
            except Exception as error:  # noqa: BLE001  discovery must not end with one bad request
                log.warning("%s of %s could not be answered: %s", verb, service.name, error)


def semantic_version(version: str) -> str:
    """A Python version as the semantic version that the services protocol asks for."""
    public, _, local = version.partition("+")
    match = _RELEASE.match(public)
    assert match is not None, version
    numbers = ".".join(str(int(number or 0)) for number in match.groups()[:3])
    before, build = _identifiers(match[4]), _identifiers(local)
    return numbers + (f"-{before}" if before else "") + (f"+{build}" if build else "")


def _identifiers(text: str) -> str:
    """What semantic versioning allows after a hyphen or a plus."""
    parts = re.findall(r"[0-9A-Za-z-]+", text)
    return ".".join(str(int(part)) if part.isdecimal() else part for part in parts)


def _endpoint(declared: Declared) -> dict[str, Any]:
    return {
        "name": declared.endpoint,
        "subject": declared.subject,
        "queue_group": QUEUE_GROUP,
    }


def _metadata(declared: Declared) -> dict[str, str]:
    return {
        "kind": declared.kind,
        "summary": declared.summary,
        "emits": ",".join(event.fact.type for event in declared.emits),
        "errors": ",".join(error.type for error in declared.errors),
    }


def _figures(stats: OperationStats) -> dict[str, Any]:
    total = stats.times.total
    return {
        "num_requests": stats.requests,
        "num_errors": stats.errors,
        "last_error": stats.last_error,
        "processing_time": total,
        "average_processing_time": total // max(1, stats.times.count),
        "data": stats.data(),
    }
