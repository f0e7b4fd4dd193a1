"""Answers as NATS messages."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque

from nats.aio.client import Client

from fleetbus.bus.calls import Answer
from fleetbus.endings import end

log = logging.getLogger("fleetbus.wire")

_EMPTY = Answer(200, b"")

MAX_ERROR_LINE = 200
"""Characters of ``Nats-Service-Error``; the whole text is in the body."""


def headers_of(answer: Answer) -> dict[str, str] | None:
    """The headers of an answer, None where it needs none."""
    if answer.status == 200 and answer.position is None and not answer.replayed:
        return None
    headers: dict[str, str] = {}
    if answer.status != 200:
        headers["Nats-Service-Error-Code"] = str(answer.status)
        headers["Nats-Service-Error"] = one_line(answer.detail)
    if answer.position is not None:
        headers["Fleet-Position"] = str(answer.position)
    if answer.replayed:
        headers["Fleet-Replayed"] = "true"
    return headers


def one_line(text: str) -> str:
    """A text that fits a header: printable, without newlines, bounded."""
    line = re.sub(r"[^\x20-\x7e]+", " ", text.encode("ascii", "replace").decode()).strip()
    return line if len(line) <= MAX_ERROR_LINE else line[: MAX_ERROR_LINE - 3] + "..."


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
            await self._client.flush()

    async def close(self) -> None:
        """End the task that sends."""
        await end(self._writer)

    async def _write(self) -> None:
        while True:
            await self._awake.wait()
            while self._answers:
                reply, answer = self._answers.popleft()
                try:
                    await self._client.publish(reply, answer.body, headers=headers_of(answer))
                except Exception as error:  # noqa: BLE001  one reply must not stop the others
                    log.warning("a reply to %r could not be sent: %s", reply, error)
            self._empty.set()
            self._awake.clear()
