"""The Python client: typed calls, retries that cannot do anything twice, typed events.

async with connect("nats://127.0.0.1:4222") as bus:
    task = await bus.call(GetTask(id=...))
    async for event in bus.events(TaskCompleted):
        ...
    async with bus.agent(provider="claude") as agent:
        async for task in agent.tasks():
            ...
            await task.complete(summary="...")
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, Unpack, overload
from uuid import UUID

import pydantic_core
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import NoRespondersError

from contracts._declare import Event, Operation, Reply
from contracts._errors import Refusal
from contracts.errors import EVERYWHERE, DeadlineExceeded
from contracts.events.events import WaitForPosition
from fleetbus.connection.client import connect as connect_client
from fleetbus.endings import unhindered
from fleetbus.events import Events
from fleetbus.ids import uuid7
from fleetbus.logs import limited
from fleetbus.worker.again import work_again
from fleetbus.worker.agent import WorkingAgent, working
from fleetbus.worker.registration import Registration

R = TypeVar("R", bound=Reply)
T = TypeVar("T")
E = TypeVar("E", bound=Event)

log = logging.getLogger("fleetbus.client")

_PATIENCE = 0.8
"""The part of an attempt's time that the service may wait: it must answer within it."""

DEFAULT_URL = "nats://127.0.0.1:4222"


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


class Bus:
    """A connection to fleetbus; made by ``connect``.

    ``agent`` is the id of the agent whose connection it is, if it belongs to one. ``another`` opens
    another one to the same servers, for the agent with the given id.
    """

    def __init__(
        self,
        client: Client,
        *,
        timeout: float,
        attempt_timeout: float,
        agent: UUID | None = None,
        another: Callable[[UUID], AbstractAsyncContextManager[Bus]] | None = None,
    ) -> None:
        self.nats = client
        self._agent = agent
        self._timeout = timeout
        self._attempt_timeout = attempt_timeout
        self._another = another

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

        A command carries an idempotency key (``key``, else a new one), so whatever may be retried
        (429, 503, 504, no answer) is sent again until ``timeout`` seconds are over.
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

        A command that is not ``keyed`` is executed again each time that it is sent: for those that
        do no harm when they are executed twice.
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

        With ``durable`` the name of a durable consumer on the stream: nothing is missed between
        two runs, and an event counts as handled when the next one is asked for. Without it, the
        events from now on.
        """
        return Events(self.nats, kinds, entity=entity, durable=durable, stream=stream)

    @contextlib.asynccontextmanager
    async def agent(self, **registration: Unpack[Registration]) -> AsyncIterator[WorkingAgent]:
        """Be an agent for as long as the block lasts; the fields are those of ``RegisterAgent``.

        The ``id`` of an agent that has ended resumes it. The agent has a connection of its own,
        named by its id (this one, if it was made for this agent), and heartbeats in the background;
        code that blocks the event loop stops them (``asyncio.to_thread`` does not).

        Leaving the block says how it ended: normally, it is stopped as ``task_complete``; by an
        exception, which propagates, it is crashed; cancelled, it is stopped as ``interrupted``.
        The block is ended with ``CancelRequested`` when somebody asks the agent to end, with
        ``AgentLost`` when this is no longer the agent, and with ``TaskLost`` when a task is lost
        outside of ``with task:``.
        """
        agent_id = registration.get("id") or self._agent or uuid7()
        async with (
            self._connection_of(agent_id) as own,
            working(own, Registration(**{**registration, "id": agent_id})) as agent,
        ):
            yield agent

    async def work(
        self,
        work: Callable[[WorkingAgent], Awaitable[T]],
        **registration: Unpack[Registration],
    ) -> T:
        """Be an agent while a function works; returns what it returns.

        If the agent was considered crashed meanwhile (a machine that stood still, a network that
        was away), the function is ended with ``AgentLost`` and called again, with the agent's next
        incarnation. If somebody stopped or deleted the agent, or started it elsewhere, it is not
        called again: ``AgentLost`` is raised.
        """
        given = Registration(**{**registration, "id": registration.get("id") or uuid7()})
        return await work_again(lambda: self.agent(**given), work)

    def _connection_of(self, agent_id: UUID) -> AbstractAsyncContextManager[Bus]:
        if agent_id == self._agent:
            return contextlib.nullcontext(self)
        if self._another is None:
            raise RuntimeError("an agent has a connection of its own: use a Bus made by connect()")
        return self._another(agent_id)

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


@contextlib.asynccontextmanager
async def connect(
    url: str = DEFAULT_URL,
    *,
    name: str = "fleetbus-client",
    agent: str | UUID | None = None,
    timeout: float = 30.0,  # noqa: ASYNC109  of later calls
    attempt_timeout: float = 5.0,
    **options: Any,
) -> AsyncIterator[Bus]:
    """A connection for as long as the block lasts; it reconnects by itself.

    ``timeout`` is the limit of a call with all its attempts, ``attempt_timeout`` of one of them,
    in seconds; ``options`` go to ``nats.connect`` (credentials, TLS, and ``inbox_prefix``, where
    replies go: else ``FLEETBUS_INBOX_PREFIX``). With ``agent``, its id, the connection is that
    agent's: it has its name, and if it is lost the agent comes under suspicion.
    """
    agent_id = None if agent is None else UUID(str(agent))
    name = name if agent_id is None else str(agent_id)
    options.setdefault("reconnect_time_wait", 0.25)
    options.setdefault("error_cb", _log_error)
    # A server that is not there is an error now; one that goes away later is waited for.
    client = await connect_client(url, name=name, **options)

    def another(agent: UUID) -> AbstractAsyncContextManager[Bus]:
        return connect(
            url, agent=agent, timeout=timeout, attempt_timeout=attempt_timeout, **options
        )

    try:
        yield Bus(
            client,
            timeout=timeout,
            attempt_timeout=attempt_timeout,
            agent=agent_id,
            another=another,
        )
    finally:
        await unhindered(client.close())


async def _log_error(error: Exception) -> None:
    limited(log, logging.INFO, "nats error", "NATS: %s", str(error) or type(error).__name__)


def _refusal(operation: Operation[Any], message: Msg) -> tuple[Refusal, float]:
    """The declared error that a reply tells, and the seconds to wait before a retry."""
    try:
        problem = pydantic_core.from_json(message.data)
    except ValueError:
        problem = {"detail": _header(message, "Nats-Service-Error")}
    errors: tuple[type[Refusal], ...] = (*operation.declared.errors, *EVERYWHERE)
    known = {error.type: error for error in errors}
    kind = known.get(problem.get("type", ""))
    if kind is None:
        return UnknownRefusal(problem), 0.0
    return kind.from_problem(problem), problem.get("retry_after_ms", 0) / 1000


def _header(message: Msg, name: str) -> str | None:
    return message.headers.get(name) if message.headers else None


def _integer(message: Msg, name: str) -> int | None:
    value = _header(message, name)
    return None if value is None else int(value)
