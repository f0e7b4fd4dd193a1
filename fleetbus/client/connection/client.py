"""nats-py's client, made steady: no message and no server makes it deaf or closes it for good.

Faults of nats-py 2 that are fixed here, each pinned by a test: it stops reading at text that is not
UTF-8 and at a PONG that nobody waits for any longer; it closes for good at most errors that the
server reports; a callback that is cancelled or an error while it reconnects ends it silently; it
keeps the ``max_payload`` of its first server and never retries subscriptions that were refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import AuthorizationError, ConnectionReconnectingError
from nats.errors import Error as NatsError

from bus.kit.header_block import (
    DESCRIPTION,
    STATUS,
    parse_header_lines,
    read_block,
)
from bus.kit.logs import limited, shown
from bus.kit.nats_io import flush
from fleetbus.client.connection.answering import checked_prefix
from fleetbus.client.connection.closing import ClosingClient
from fleetbus.client.connection.parser import SteadyParser

log = logging.getLogger("fleetbus.nats")

FOR_EVER: Final = -1

INBOX_PREFIX: Final = "_INBOX"

REFUSED_INTERVAL: Final = 2.0
"""Seconds after which a subscription that the server refused is tried again."""

_REFUSED: Final = re.compile(
    r"permissions violation for (subscription|publish) to \"([^\"]*)\"", re.IGNORECASE
)

_DELIVERED: Final = b"$JS.ACK."
"""What the reply subject of a message out of a stream begins with."""


class RepliesRefused(NatsError):
    """No answer can come back: the server does not let this client subscribe to its inbox."""

    def __str__(self) -> str:
        return (
            "this user may not subscribe to its inbox: name one that it may in"
            " FLEETBUS_INBOX_PREFIX, or allow it"
        )


async def connect(
    servers: str | Sequence[str],
    *,
    attempts: int = 1,
    inbox_prefix: str | None = None,
    **options: Any,
) -> SteadyClient:
    """A connection that comes back by itself, for as long as it takes, until it is closed here.

    The first one is tried ``attempts`` more times on each server, then nats-py's error is raised.
    ``inbox_prefix`` is where replies are to go, else ``FLEETBUS_INBOX_PREFIX``; ``options`` are
    those of ``nats.connect``.
    """
    client = SteadyClient()
    for name in ("error_cb", "disconnected_cb", "reconnected_cb", "closed_cb"):
        if (callback := options.get(name)) is not None:
            options[name] = _guarded(callback)
    options.setdefault("error_cb", _log_error)
    await client.connect(
        servers if isinstance(servers, str) else list(servers),
        max_reconnect_attempts=attempts,
        inbox_prefix=inbox_prefix_or_default(inbox_prefix),
        **options,
    )
    # With it from the start, nats-py would try for ever to reach a server that is not there.
    client.options["max_reconnect_attempts"] = FOR_EVER
    return client


def inbox_prefix_or_default(given: str | None) -> str:
    """The prefix of the inboxes of this process. Raises ``ValueError`` where it cannot be one."""
    prefix = given or os.environ.get("FLEETBUS_INBOX_PREFIX") or INBOX_PREFIX
    try:
        if prefix.endswith("."):
            raise ValueError("a dot follows it by itself")
        return checked_prefix(prefix)
    except ValueError as error:
        raise ValueError(f"{prefix!r} cannot be the prefix of an inbox: {error}") from None


class SteadyClient(ClosingClient):
    """The client; made by ``connect``."""

    _parse_header_lines = staticmethod(parse_header_lines)

    def __init__(self) -> None:
        super().__init__()
        self._ps = SteadyParser(self)
        self.refused: set[int] = set()
        """The subscriptions that the server does not allow; they are tried again."""
        self.unpublished = ""
        """The subject of the last message that the server did not allow."""
        self._refused_lately: set[int] = set()
        self._retrying: asyncio.Task[None] | None = None
        self._mending: asyncio.Task[None] | None = None

    async def reconnect(self, why: str) -> None:
        """Leave this connection, whatever its state, for a new one."""
        await self._process_op_err(NatsError(f"nats: {why}"))

    async def subscribe(self, *given: Any, **options: Any) -> Subscription:
        """As nats-py's, and what ends the task of a subscription does not end the subscription."""
        subscription = await super().subscribe(*given, **options)
        self._watch(subscription)
        return subscription

    async def request(self, subject: str, *given: Any, **options: Any) -> Msg:
        """As nats-py's, but with an error at once if no answer could come back."""
        if self.refused and self._replies_refused():
            raise RepliesRefused
        return await super().request(subject, *given, **options)

    async def _process_headers(self, headers: bytes | None) -> dict[str, str] | None:
        return read_block(headers) if headers else None

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        if headers and STATUS in headers and reply.startswith(_DELIVERED):
            # Somebody has stored it so; a status of the server's own has no place in a stream.
            del headers[STATUS]
            headers.pop(DESCRIPTION, None)
        return self.msg_class(
            subject=subject.decode("utf-8", "replace"),
            reply=reply.decode("utf-8", "replace"),
            data=data,
            headers=headers or None,
            _client=self,
            _sid=sid,
        )

    async def _process_pong(self) -> None:
        if self._pongs and self._pongs[0].done():
            # Nobody waits for it any more, but its PONG still comes.
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        limit = info.get("max_payload")
        if isinstance(limit, int) and limit > 0:
            self._max_payload = limit
        await super()._process_info(info, initial_connection)

    async def _process_err(self, err_msg: str) -> None:
        """The server reports an error. If it ends the connection, it does so itself."""
        text = err_msg.strip().strip("'")
        self._err = NatsError(f"nats: {text}")
        if "authorization violation" in text.lower():
            self._err = AuthorizationError()
        if (found := _REFUSED.search(text)) is not None:
            if found[1].lower() == "publish":
                self.unpublished = found[2]
            else:
                self._refuse(found[2])
        elif "maximum subscriptions exceeded" in text.lower():
            self._refuse(None)
        await self._error_cb(self._err)

    def _refuse(self, subject: str | None) -> None:
        """Note the subscriptions to a subject, or all where it is not known which."""
        sids = {sid for sid, s in self._subs.items() if subject is None or s.subject == subject}
        self.refused |= sids
        self._refused_lately |= sids
        if self._replies_refused():
            for waiting in self._resp_map.values():
                if not waiting.done():
                    waiting.set_exception(RepliesRefused())
        if self.refused and (self._retrying is None or self._retrying.done()):
            self._retrying = asyncio.create_task(self._retry(), name="fleetbus-refused")

    def _replies_refused(self) -> bool:
        if not self._resp_sub_prefix:
            return False
        replies = self._resp_sub_prefix.decode() + "*"
        return any(self._subs[s].subject == replies for s in self.refused & self._subs.keys())

    async def _retry(self) -> None:
        """Retry the subscriptions that were refused until they are allowed; the others stay."""
        while self.refused and not self.is_closed:
            await asyncio.sleep(REFUSED_INTERVAL)
            if not self.is_connected or self.is_draining:
                continue
            self._refused_lately = set()
            with contextlib.suppress(NatsError, OSError, TimeoutError):
                for sid in self.refused & self._subs.keys():
                    await self._send_subscribe(self._subs[sid])
                # What is refused is told before the answer to this.
                await flush(self)
                self.refused = self._refused_lately & self._subs.keys()
                if not self.refused:
                    log.warning("all subscriptions are allowed again")

    async def _connect_to_server(self, s: Any) -> None:
        """As nats-py's, and what an attempt that failed at its end has left behind is ended."""
        self._abort()
        for task in self._own_tasks():
            task.cancel()
        await super()._connect_to_server(s)

    async def _process_connect_init(self) -> None:
        await super()._process_connect_init()
        for task in self._own_tasks():
            task.add_done_callback(self._ended)

    async def _attempt_reconnect(self) -> None:
        """As nats-py's, but nothing except closing ends it."""
        self._abort()
        for pong in self._pongs:
            if not pong.done():
                pong.set_exception(ConnectionReconnectingError())
                pong.exception()  # most of them nobody waits for
        while not self.is_closed:
            try:
                await super()._attempt_reconnect()
            except Exception as error:  # noqa: BLE001  whatever it is, the next attempt may succeed
                await self._error_cb(error)
                await asyncio.sleep(self.options["reconnect_time_wait"])
            else:
                return

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        await super()._close(status, do_cbs)
        if self._retrying is not None and self._retrying is not asyncio.current_task():
            self._retrying.cancel()
        self.refused = set()

    def _own_tasks(self) -> list[asyncio.Task[Any]]:
        tasks = (self._reading_task, self._flusher_task, self._ping_interval_task)
        return [task for task in tasks if task is not None]

    def _ended(self, task: asyncio.Task[Any]) -> None:
        """A task of the connection has ended: unless it was meant to, the connection is renewed."""
        if self.is_connected and not self.is_draining and task in self._own_tasks():
            name = getattr(task.get_coro(), "__name__", "a task")
            self._mending = asyncio.create_task(self.reconnect(f"{name} has ended"))

    def _watch(self, subscription: Subscription) -> None:
        task: asyncio.Task[None] | None = getattr(subscription, "_wait_for_msgs_task", None)
        if task is not None:
            task.add_done_callback(lambda _: self._revive(subscription))

    def _revive(self, subscription: Subscription) -> None:
        """A subscription whose task has ended, by a callback that was cancelled, goes on."""
        known = subscription._id in self._subs and not subscription._closed  # noqa: SLF001  pinned by a test
        if known and not self.is_closed:
            subscription._start(self._error_cb)  # type: ignore[no-untyped-call]  # noqa: SLF001  pinned by a test
            self._watch(subscription)


def _guarded(callback: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """A callback whose errors end none of nats-py's tasks."""

    async def call(*given: Any) -> None:
        try:
            await callback(*given)
        except Exception as error:  # noqa: BLE001  whatever it is, nats-py goes on
            limited(log, logging.ERROR, "nats callback", "a callback failed", exc_info=error)

    return call


async def _log_error(error: Exception) -> None:
    words = shown(str(error) or type(error).__name__)
    limited(log, logging.WARNING, "nats error", "NATS: %s", words)
