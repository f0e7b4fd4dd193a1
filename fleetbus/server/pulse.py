"""Whether a process can still be reached: messages of its own that come back to it.

A connection can look well and be deaf. So every few seconds a process sends itself a message, the
way its answers go out, and hears it, the way requests come in.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from bus.kit.aio import end
from bus.kit.nats_io import flush
from fleetbus.client.connection.client import SteadyClient
from fleetbus.server.wire.replies import Responder

log = logging.getLogger("fleetbus.pulse")

SUBJECT: Final = "_fleetbus.probe"

INTERVAL: Final = 1.0
"""Seconds between two messages."""

PATIENCE: Final = 2.0
"""Seconds that one may take to come back."""

FRESH: Final = 5.0
"""Seconds for which a message that came back is taken for a sign of life."""

MISSES: Final = 3
"""Messages in turn that do not come back until the connection is made anew."""

BUSY: Final = 0.1
"""What one counts while others are heard: the process has too much to do, and is not deaf."""

REMEMBERED: Final = 16
"""Messages that are known again when they come late."""

ATTEMPTS: Final = 3
"""Connections that are made anew until the process is given up."""


class Pulse:
    """The messages of one process to itself; ``start``, then ``stop``.

    It counts what does not come back while there is a connection, and not the seconds: a process
    that was stopped for a while is as well as before.
    """

    def __init__(
        self, client: SteadyClient, responder: Responder, give_up: Callable[[str], None]
    ) -> None:
        self._client = client
        self._responder = responder
        self._give_up = give_up
        self._subject = f"{SUBJECT}.{secrets.token_hex(16)}"
        self._sent: deque[bytes] = deque(maxlen=REMEMBERED)
        self._next: asyncio.Future[None] | None = None
        self._missed = 0.0
        self._mended = 0
        self._beating: asyncio.Task[None] | None = None
        self.last: float | None = None
        """When one came back last, by the monotonic clock: until then requests were answered."""

    @property
    def fresh(self) -> bool:
        """Whether requests can be answered, as far as NATS goes: one came back just now."""
        return self.last is not None and time.monotonic() - self.last <= FRESH

    async def start(self) -> None:
        """Subscribe, send the first one, and go on until stopped."""
        await self._client.subscribe(self._subject, cb=self._hear)
        await flush(self._client)
        await self._beat()
        self._beating = asyncio.create_task(self._keep_beating(), name="pulse")

    async def stop(self) -> None:
        """Send no more."""
        if self._beating is not None:
            await end(self._beating)

    async def comes_back(self, within: float = 1.0) -> bool:
        """Whether a message that is sent now comes back, within so many seconds."""
        if not self._client.is_connected:
            return False
        asked = time.monotonic()
        self._sent.append(secrets.token_hex(8).encode())
        self._responder.notify(self._subject, self._sent[-1])
        try:
            async with asyncio.timeout(within):
                while self.last is None or self.last < asked:
                    if self._next is None or self._next.done():
                        self._next = asyncio.get_running_loop().create_future()
                    await asyncio.shield(self._next)
        except TimeoutError:
            return False
        return True

    async def _hear(self, message: Msg) -> None:
        """One that comes late says as much: that what is sent to this process arrives."""
        if message.data in self._sent:
            self.last = time.monotonic()
            self._missed = self._mended = 0
            if self._next is not None and not self._next.done():
                self._next.set_result(None)

    async def _keep_beating(self) -> None:
        while not self._client.is_closed:
            await asyncio.sleep(INTERVAL)
            await self._beat()
            if self._missed >= MISSES:
                await self._mend()
        self._give_up("the connection to NATS was closed")

    async def _beat(self) -> None:
        if not self._client.is_connected:
            return  # it is looked for, and nothing can come back
        heard = self._client.stats["in_msgs"]
        if not await self.comes_back(PATIENCE) and self._counts:
            busy = self._client.stats["in_msgs"] != heard
            self._missed += BUSY if busy else 1

    async def _mend(self) -> None:
        self._missed = 0.0
        if self._mended >= ATTEMPTS:
            self._give_up("its own messages do not come back from NATS, on any connection")
            return
        self._mended += 1
        log.error("our own messages do not come back from NATS: reconnecting")
        with contextlib.suppress(NatsError, OSError, TimeoutError):
            await self._client.reconnect("messages do not come back")

    @property
    def _counts(self) -> bool:
        """Whether another connection could help: not if there is none, nor if it is forbidden."""
        forbidden = self._client.refused or self._client.unpublished == self._subject
        return self._client.is_connected and not forbidden
