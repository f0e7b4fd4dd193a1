"""Answers ``$SRV.PING``, ``INFO`` and ``STATS`` (ADR-32): one NATS service per context.

Each service is asked for by its own name and id, so that a request for one that does not exist
has no responders, which the caller learns at once, and not a timeout.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pydantic_core
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.nuid import NUID

from bus.contract.catalogue import Context
from bus.contract.operation import Declared
from bus.kit.logs import limited
from bus.kit.nats_io import flush
from bus.running.registry import Registry
from bus.running.stats import OperationStats, Stats
from fleetbus.client.connection.answering import ReplyRule
from fleetbus.server.config import VERSION
from fleetbus.server.wire.broker import QUEUE_GROUP

log = logging.getLogger("fleetbus.discovery")

PREFIX = "$SRV"

Process = Callable[[], Awaitable[dict[str, Any]]]
"""What the process that serves the operations says of itself."""

PROCESS_CONTEXT, PROCESS_SUBJECT = "meta", "db.meta.operations"
"""The service and the endpoint in whose data it is: the protocol has no place but endpoints."""

_RELEASE = re.compile(r"(?:\d+!)?(\d+)(?:\.(\d+))?(?:\.(\d+))?(.*)")


class ContextService:
    """One context as a NATS service: what it answers."""

    def __init__(
        self, context: Context, stats: Stats, version: str, process: Process | None = None
    ) -> None:
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
        self._process = process if context.name == PROCESS_CONTEXT else None

    async def answer(self, verb: str) -> bytes | None:
        """The answer to a verb, None where there is none."""
        match verb:
            case "PING":
                answer = self.ping()
            case "INFO":
                answer = self.info()
            case "STATS":
                answer = await self.stats()
            case _:
                return None
        return pydantic_core.to_json(answer)

    def waits(self, verb: str) -> bool:
        """Whether the answer may take a moment."""
        return verb == "STATS" and self._process is not None

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

    async def stats(self) -> dict[str, Any]:
        """What it has done since it was started."""
        operations = self._stats.operations
        answer: dict[str, Any] = {
            "type": "io.nats.micro.v1.stats_response",
            **self._identity,
            "started": self._stats.started.isoformat().replace("+00:00", "Z"),
            "endpoints": [
                {**_endpoint(o.declared), **_figures(operations[o.declared.subject])}
                for o in self._context.operations
            ],
        }
        if self._process is not None:
            [endpoint] = [e for e in answer["endpoints"] if e["subject"] == PROCESS_SUBJECT]
            endpoint["data"]["process"] = await self._process()
        return answer


class Discovery:
    """The services of a process on one connection; ``start``, then ``stop``."""

    def __init__(
        self,
        client: Client,
        registry: Registry,
        stats: Stats,
        *,
        version: str = VERSION,
        process: Process | None = None,
        replies: ReplyRule | None = None,
    ) -> None:
        self._client = client
        self._replies = replies or ReplyRule()
        self.services = tuple(
            ContextService(context, stats, semantic_version(version), process)
            for context in registry.catalogue.contexts
            if context.operations
        )
        self._subscriptions: list[Subscription] = []
        self._waiting: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Subscribe; when this returns the server knows of it."""
        await self._subscribe(f"{PREFIX}.*", self.services)
        for service in self.services:
            await self._subscribe(f"{PREFIX}.*.{service.name}", (service,))
            await self._subscribe(f"{PREFIX}.*.{service.name}.{service.id}", (service,))
        await flush(self._client)

    async def stop(self) -> None:
        """Leave; what the server has sent already is still answered."""
        subscriptions, self._subscriptions = self._subscriptions, []
        await asyncio.gather(*(self._leave(subscription) for subscription in subscriptions))
        await asyncio.gather(*self._waiting)

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
        """Each of these services replies; one that must ask the database holds up no other."""
        verb = request.subject.split(".")[1]
        if not request.reply:
            return
        if not self._replies.allows(request.reply):
            self._replies.refuse(PREFIX, request.reply)
            return
        for service in services:
            if service.waits(verb):
                task = asyncio.create_task(self._reply(service, verb, request.reply))
                self._waiting.add(task)
                task.add_done_callback(self._waiting.discard)
            else:
                await self._reply(service, verb, request.reply)

    async def _reply(self, service: ContextService, verb: str, to: str) -> None:
        """Whatever goes wrong, the next request is answered."""
        try:
            if (answer := await service.answer(verb)) is not None:
                await self._client.publish(to, answer)
        except Exception as error:  # noqa: BLE001  discovery must not end with one bad request
            said = "%s of %s could not be answered: %s"
            limited(log, logging.WARNING, "discovery", said, verb, service.name, error)


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
