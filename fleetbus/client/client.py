"""The Python client: typed calls, retries that cannot do anything twice, typed events.

async with connect("nats://127.0.0.1:4222") as bus:
    task = await bus.call(GetTask(id=...))
    async for event in bus.events(TaskCompleted):
        ...
    async with bus.transaction() as tx:
        task = tx.call(CreateTask(...))
    async with bus.agent(provider="claude") as agent:
        async for task in agent.tasks():
            ...
            await task.complete(summary="...")
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, TypeVar, Unpack
from uuid import UUID

from nats.aio.client import Client as NatsClient

from bus.kit.aio import unhindered
from bus.kit.ids import uuid7
from bus.kit.logs import limited
from fleetbus.client.again import work_again
from fleetbus.client.calling import Caller
from fleetbus.client.connection.client import connect as connect_client
from fleetbus.client.transaction import Transaction

if TYPE_CHECKING:
    from fleetbus.client.agent import WorkingAgent
    from fleetbus.client.registration import Registration

T = TypeVar("T")

log = logging.getLogger("fleetbus.client")

DEFAULT_URL = "nats://127.0.0.1:4222"


class Client(Caller):
    """A connection to fleetbus; made by ``connect``.

    ``agent`` is the id of the agent that the connection belongs to, if any. ``another`` opens
    another connection to the same servers, for the agent with the given id.
    """

    def __init__(
        self,
        nats: NatsClient,
        *,
        timeout: float,
        attempt_timeout: float,
        agent: UUID | None = None,
        another: Callable[[UUID], AbstractAsyncContextManager[Client]] | None = None,
    ) -> None:
        super().__init__(nats, timeout=timeout, attempt_timeout=attempt_timeout)
        self._agent = agent
        self._another = another

    @contextlib.asynccontextmanager
    async def transaction(
        self,
        *,
        key: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  the caller's limit for all attempts
        dry_run: bool = False,
        traceparent: str | None = None,
    ) -> AsyncIterator[Transaction]:
        """Commands that take effect together, or not at all; they are sent when the block ends.

        After an exception in the block nothing is sent. If a command fails, its declared error is
        raised at the end of the block; its ``operation`` is the index of the command.
        """
        transaction = Transaction()
        yield transaction
        if (request := transaction.request()) is None:
            return
        answered = await self.request(
            request, key=key, timeout=timeout, dry_run=dry_run, traceparent=traceparent
        )
        transaction.answered(answered.reply.replies, answered.position)

    @contextlib.asynccontextmanager
    async def agent(self, **registration: Unpack[Registration]) -> AsyncIterator[WorkingAgent]:
        """Be an agent for as long as the block lasts; the fields are those of ``RegisterAgent``.

        The ``id`` of an agent that has ended resumes it. The agent has a connection of its own,
        named by its id (this one, if it was made for this agent), and sends heartbeats in the
        background; code that blocks the event loop stops them (``asyncio.to_thread`` does not).

        How the block is left decides how the agent ends: normally, it is stopped as
        ``task_complete``; by an exception, which propagates, it is crashed; cancelled, it is
        stopped as ``interrupted``. The block is ended with ``CancelRequested`` when somebody asks
        the agent to end, with ``AgentLost`` when this process is no longer the agent, and with
        ``TaskLost`` when a task is lost outside of ``with task:``.
        """
        working = await asyncio.to_thread(_agents)
        agent_id = registration.get("id") or self._agent or uuid7()
        given: Registration = {**registration, "id": agent_id}
        async with self._connection_of(agent_id) as own, working(own, given) as agent:
            yield agent

    async def work(
        self,
        work: Callable[[WorkingAgent], Awaitable[T]],
        **registration: Unpack[Registration],
    ) -> T:
        """Be an agent while a function works; returns what it returns.

        If the agent was considered crashed meanwhile (because the machine stood still or the
        network was down), the function is ended with ``AgentLost`` and called again, with the
        agent's next incarnation. If somebody stopped or deleted the agent, or started it elsewhere,
        it is not called again: ``AgentLost`` is raised.
        """
        given: Registration = {**registration, "id": registration.get("id") or uuid7()}
        return await work_again(lambda: self.agent(**given), work)

    def _connection_of(self, agent_id: UUID) -> AbstractAsyncContextManager[Client]:
        if agent_id == self._agent:
            return contextlib.nullcontext(self)
        if self._another is None:
            raise RuntimeError(
                "an agent needs a connection of its own: use a Client made by connect()"
            )
        return self._another(agent_id)


def _agents() -> Callable[[Caller, Registration], AbstractAsyncContextManager[WorkingAgent]]:
    """What an agent is made with; who only calls does without these contracts.

    The first time they are imported, which is done beside the event loop.
    """
    from fleetbus.client.agent import working

    return working


Bus = Client
"""The former name of this class."""


@contextlib.asynccontextmanager
async def connect(
    url: str = DEFAULT_URL,
    *,
    name: str = "fleetbus-client",
    agent: str | UUID | None = None,
    timeout: float = 30.0,  # noqa: ASYNC109  of later calls
    attempt_timeout: float = 5.0,
    **options: Any,
) -> AsyncIterator[Client]:
    """A connection for as long as the block lasts; it reconnects by itself.

    ``timeout`` is the limit of a call with all its attempts, ``attempt_timeout`` that of one
    attempt, in seconds; ``options`` go to ``nats.connect`` (credentials, TLS, and ``inbox_prefix``,
    where replies go: else ``FLEETBUS_INBOX_PREFIX``).

    ``agent`` is the id of the agent that the connection belongs to: the connection gets its name,
    and if it is lost the agent comes under suspicion.
    """
    agent_id = None if agent is None else UUID(str(agent))
    name = name if agent_id is None else str(agent_id)
    options.setdefault("reconnect_time_wait", 0.25)
    options.setdefault("error_cb", _log_error)
    # A server that is not there is an error now; one that goes away later is waited for.
    client = await connect_client(url, name=name, **options)

    def another(agent: UUID) -> AbstractAsyncContextManager[Client]:
        return connect(
            url, agent=agent, timeout=timeout, attempt_timeout=attempt_timeout, **options
        )

    try:
        yield Client(
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
