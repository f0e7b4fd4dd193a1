"""Calls over one connection: typed, repeated for as long as there is time, never executed twice."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

import pydantic_core
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.errors import NoRespondersError

from bus.contract.errors import EVERYWHERE, DeadlineExceeded
from bus.contract.event import Event
from bus.contract.model import Reply
from bus.contract.operation import OPERATIONS, Operation
from bus.contract.refusals import Refusal
from bus.kit.ids import uuid7
from contracts.events.events import WaitForPosition
from contracts.meta.transactions import ExecuteTransaction
from fleetbus.client.events import Events

R = TypeVar("R", bound=Reply)
E = TypeVar("E", bound=Event)

_PATIENCE = 0.8
"""The part of an attempt's time that the service may wait: it must answer within it."""


class NoAnswer(TimeoutError):
    """Nobody answered in time; a command may or may not have taken effect."""


class UnknownRefusal(Refusal):
    """A refusal of a type that this client does not know."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__()
        self.body = problem
        Exception.__init__(self, problem.get("detail") or problem.get("type"))


@dataclass(frozen=True)
class Answered(Generic[R]):
    """A reply with the values of its headers."""

    reply: R
    position: int | None
    """The highest outbox position of the command's transaction."""
    replayed: bool
    """Whether the reply was stored by an earlier run of the same key."""


class Caller:
    """Calls and events over an existing connection."""

    def __init__(self, nats: NatsClient, *, timeout: float, attempt_timeout: float) -> None:
        self.nats = nats
        self._timeout = timeout
        self._attempt_timeout = attempt_timeout

    async def call(
        self,
        operation: Operation[R],
        *,
        key: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  the caller's limit for all attempts
        dry_run: bool = False,
        traceparent: str | None = None,
    ) -> R:
        """The operation's reply. Raises its declared errors, or ``NoAnswer``.

        A command carries an idempotency key (``key``, else a new one), so any call that may be
        retried (429, 503, 504, no answer) is sent again until ``timeout`` seconds are over.
        """
        answered = await self.request(
            operation, key=key, timeout=timeout, dry_run=dry_run, traceparent=traceparent
        )
        return answered.reply

    async def request(
        self,
        operation: Operation[R],
        *,
        key: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  the caller's limit for all attempts
        dry_run: bool = False,
        keyed: bool = True,
        traceparent: str | None = None,
    ) -> Answered[R]:
        """Like ``call``, with the values of the reply's headers.

        A command that is not ``keyed`` is executed again each time that it is sent: this is for
        commands that do no harm when they are executed twice.
        """
        headers: dict[str, str] = {}
        if operation.declared.kind == "command" and keyed and not dry_run:
            headers["Nats-Msg-Id"] = key or str(uuid7())
        if dry_run:
            headers["Fleet-Dry-Run"] = "true"
        if traceparent:
            headers["traceparent"] = traceparent
        body = operation.__pydantic_serializer__.to_json(operation, exclude_unset=True)
        end = time.monotonic() + (self._timeout if timeout is None else timeout)
        message = await self._answer(operation, body, headers, end)
        reply: Any = operation.declared.reply.model_validate_json(message.data)
        return Answered(
            reply=reply,
            position=_integer(message, "Fleet-Position"),
            replayed=_header(message, "Fleet-Replayed") == "true",
        )

    async def settled(
        self,
        told: Answered[Any] | int,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  the caller's limit for all attempts
    ) -> None:
        """Wait until the stream holds a command's events: a reply of ``request``, or its position.

        Returns at once if it emitted none. Raises ``NoAnswer`` after ``timeout`` seconds.
        """
        position = told if isinstance(told, int) else told.position
        end = time.monotonic() + (self._timeout if timeout is None else timeout)
        last: Exception | None = None
        while position is not None:
            left = end - time.monotonic()
            if left <= 0:
                raise NoAnswer(f"position {position} is not in the stream yet") from last
            patience = int(min(left, self._attempt_timeout) * _PATIENCE * 1000)
            asked = WaitForPosition(position=position, timeout_ms=patience)
            try:
                if (await self.call(asked, timeout=left)).published:
                    return
            except (NoAnswer, DeadlineExceeded) as error:
                last = error

    @overload
    def events(
        self, *, entity: object | None = None, durable: str | None = None, stream: str = "EVENTS"
    ) -> Events[Event]: ...

    @overload
    def events(
        self,
        *kinds: type[E],
        entity: object | None = None,
        durable: str | None = None,
        stream: str = "EVENTS",
    ) -> Events[E]: ...

    def events(
        self,
        *kinds: type[Any],
        entity: object | None = None,
        durable: str | None = None,
        stream: str = "EVENTS",
    ) -> Events[Any]:
        """Events of these types (none: all), of one entity if its id is given.

        ``durable`` is the name of a durable consumer on the stream: nothing is missed between two
        runs, and an event counts as handled when the next one is asked for. Without it, only events
        from now on.
        """
        return Events(self.nats, kinds, entity=entity, durable=durable, stream=stream)

    async def _answer(
        self, operation: Operation[Any], body: bytes, headers: dict[str, str], end: float
    ) -> Msg:
        pause = 0.05
        last: Exception | None = None
        while (left := end - time.monotonic()) > 0:
            attempt = min(left, self._attempt_timeout)
            headers["Fleet-Deadline"] = str(int((time.time() + attempt) * 1000))
            wait = pause * random.uniform(0.5, 1)  # noqa: S311  jitter
            try:
                message = await self.nats.request(
                    operation.declared.subject, body, timeout=attempt, headers=headers
                )
            except (TimeoutError, NoRespondersError) as error:
                last = error
            else:
                if _header(message, "Nats-Service-Error-Code") is None:
                    return message
                refusal, after = _refusal(operation, message)
                if not refusal.retryable:
                    raise refusal
                last, wait = refusal, max(wait, after)
            if wait >= end - time.monotonic():
                break  # there is no time left for an answer; what is known is told now
            await asyncio.sleep(wait)
            pause = min(pause * 2, 1.0)
        if isinstance(last, Refusal):
            raise last
        raise NoAnswer(f"no answer from {operation.declared.subject}") from last


def _refusal(operation: Operation[Any], message: Msg) -> tuple[Refusal, float]:
    """The declared error in a reply, and the seconds to wait before a retry."""
    try:
        problem = pydantic_core.from_json(message.data)
    except ValueError:
        problem = {"detail": _header(message, "Nats-Service-Error")}
    known = {error.type: error for error in _errors(operation)}
    kind = known.get(problem.get("type", ""))
    if kind is None:
        return UnknownRefusal(problem), 0.0
    return kind.from_problem(problem), problem.get("retry_after_ms", 0) / 1000


def _errors(operation: Operation[Any]) -> Iterator[type[Refusal]]:
    """The errors of an operation; for several commands in one transaction, the errors of each."""
    yield from EVERYWHERE
    yield from operation.declared.errors
    if isinstance(operation, ExecuteTransaction):
        for one in operation.operations:
            if one.subject in OPERATIONS:
                yield from OPERATIONS[one.subject].declared.errors


def _header(message: Msg, name: str) -> str | None:
    return message.headers.get(name) if message.headers else None


def _integer(message: Msg, name: str) -> int | None:
    value = _header(message, name)
    return None if value is None else int(value)
