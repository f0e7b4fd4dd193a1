"""Answers on their way out."""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from nats.aio.client import Client

from fleetbus.bus.calls import Answer
from fleetbus.endings import end
from fleetbus.flushing import flush
from fleetbus.wire.frames import frame
from fleetbus.wire.headers import headers_of

log = logging.getLogger("fleetbus.wire")

_EMPTY = Answer(200, b"")

TOGETHER = 64 * 1024
"""Bytes of answers that are written as one piece."""


class Responder:
    """Sends answers in order from one task, so that no broken reply disturbs the work."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._answers: deque[tuple[str, Answer]] = deque()
        self._awake = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._writer = asyncio.create_task(self._write(), name="fleetbus-replies")

    def respond(self, subject: str, reply: str, answer: Answer) -> None:
        """Queue an answer; a request without a reply subject has its refusal logged."""
        if not reply:
            if answer.status != 200:
                log.warning("%s: %s %s: %s", subject, answer.status, answer.kind, answer.detail)
            return
        self._answers.append((reply, answer))
        self._empty.clear()
        self._awake.set()

    def notify(self, subject: str) -> None:
        """Queue an empty message."""
        self._answers.append((subject, _EMPTY))
        self._empty.clear()
        self._awake.set()

    async def flushed(self) -> None:
        """Wait until every queued answer is with the server."""
        await self._empty.wait()
        if self._client.is_connected:
            await flush(self._client)

    async def close(self) -> None:
        """End the task that sends."""
        await end(self._writer)

    async def _write(self) -> None:
        while True:
            await self._awake.wait()
            while self._answers:
                if self._client.is_connected:
                    await self._send(self._take())
                else:
                    await self._publish(*self._answers.popleft())
            self._empty.set()
            self._awake.clear()

    def _take(self) -> bytes:
        """What waits, as one piece."""
        taken, size = [], 0
        while self._answers and size < TOGETHER:
            subject, answer = self._answers.popleft()
            if len(answer.body) > self._client.max_payload:
                log.warning("a reply to %r could not be sent: too large", subject)
                continue
            taken.append(frame(subject, answer))
            size += len(taken[-1])
        self._client.stats["out_msgs"] += len(taken)
        self._client.stats["out_bytes"] += size
        return b"".join(taken)

    async def _send(self, frames: bytes) -> None:
        """Write what `Client.publish` would, without its cost for each."""
        try:
            await self._client._send_command(frames)  # noqa: SLF001  pinned by a test
            await self._client._flush_pending()  # noqa: SLF001  as above
        except Exception as error:  # noqa: BLE001  the next ones may be sendable
            log.warning("replies could not be sent: %s", error)

    async def _publish(self, subject: str, answer: Answer) -> None:
        """While there is no connection: kept by the client, as far as it does, for the next one."""
        try:
            await self._client.publish(subject, answer.body, headers=headers_of(answer))
        except Exception as error:  # noqa: BLE001  one reply must not stop the others
            log.warning("a reply to %r could not be sent: %s", subject, error)
