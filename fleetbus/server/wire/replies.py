"""Answers on their way out."""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from nats.aio.client import Client

from bus.contract.errors import ReplyTooLarge
from bus.kit.aio import end
from bus.kit.logs import limited, shown
from bus.kit.nats_io import flush
from bus.running.calls import Answer
from fleetbus.server.wire.frames import frame
from fleetbus.server.wire.headers import headers_of

log = logging.getLogger("fleetbus.wire")

HEADER_ROOM = 512
"""Bytes that the headers of an answer take at most."""

ADVICE = "the NATS server accepts no larger messages now; ask for a smaller page with limit"

TOGETHER = 64 * 1024
"""Bytes of answers that are written as one piece."""

MOST_UNCOUNTED = 16 * 1024 * 1024
"""Bytes of answers that wait to be written and count in no budget, most of them refusals at
admission; beyond it, which takes a server that reads nothing, further ones are given up."""


class Responder:
    """Sends answers in order from one task, so that no broken reply disturbs the work."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._answers: deque[tuple[str, Answer]] = deque()
        self._awake = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._uncounted = 0
        self.given_up = 0
        """Refusals that were not sent, because the server read nothing for too long."""
        self._writer = asyncio.create_task(self._write(), name="fleetbus-replies")

    def respond(self, subject: str, reply: str, answer: Answer) -> None:
        """Queue an answer; a request without a reply subject has its refusal logged."""
        if not reply:
            if answer.status != 200:
                said = (subject, answer.status, answer.kind, shown(answer.detail))
                limited(log, logging.WARNING, "refused unheard", "%s: %s %s: %s", *said)
            if answer.sent is not None:
                answer.sent()
            return
        if answer.sent is None:
            if self._uncounted > MOST_UNCOUNTED:
                self.given_up += 1
                return
            self._uncounted += len(answer.body)
        self._answers.append((reply, answer))
        self._empty.clear()
        self._awake.set()

    def notify(self, subject: str, body: bytes = b"") -> None:
        """Queue a message to a subject of our own."""
        self._uncounted += len(body)
        self._answers.append((subject, Answer(200, body)))
        self._empty.clear()
        self._awake.set()

    async def flushed(self) -> None:
        """Wait until every queued answer is with the server."""
        await self._empty.wait()
        if self._client.is_connected:
            await flush(self._client)

    @property
    def writer(self) -> asyncio.Task[None]:
        """The task that sends."""
        return self._writer

    async def close(self) -> None:
        """End the task that sends."""
        await end(self._writer)

    async def _write(self) -> None:
        while True:
            await self._awake.wait()
            while self._answers:
                try:
                    await self._write_some()
                except Exception as error:  # noqa: BLE001  the next ones may be sendable
                    limited(log, logging.ERROR, "unsent", "an answer is lost", exc_info=error)
            self._empty.set()
            self._awake.clear()

    async def _write_some(self) -> None:
        connected = self._client.is_connected
        taken = self._take() if connected else [self._answers.popleft()]
        try:
            if connected:
                await self._send(taken)
            else:
                await self._publish(*taken[0])
        finally:
            self._let_go(taken)

    def _take(self) -> list[tuple[str, Answer]]:
        """What waits, as much of it as is written together."""
        taken, size = [], 0
        while self._answers and size < TOGETHER:
            taken.append(self._answers.popleft())
            size += len(taken[-1][1].body)
        return taken

    def _fitting(self, subject: str, answer: Answer) -> Answer:
        """The answer, or that it is too large: the limit is the server's, who may have changed it.

        A message beyond it would end the connection, with the answers of all others.
        """
        limit = self._client.max_payload
        size = len(answer.body)
        if size + HEADER_ROOM <= limit or (size <= limit and headers_of(answer) is None):
            return answer
        kind, where = "reply too large", shown(subject)
        limited(log, logging.WARNING, kind, "a reply of %d bytes to %s is too large", size, where)
        return Answer.refused(ReplyTooLarge(bytes=size, limit=limit, advice=ADVICE))

    async def _send(self, taken: list[tuple[str, Answer]]) -> None:
        """Write what `Client.publish` would, without its cost for each."""
        frames = [frame(subject, self._fitting(subject, answer)) for subject, answer in taken]
        piece = b"".join(frames)
        self._client.stats["out_msgs"] += len(frames)
        self._client.stats["out_bytes"] += len(piece)
        try:
            # Beyond what nats-py gathers, some MiB, this waits until the socket takes more.
            await self._client._send_command(piece)  # noqa: SLF001  pinned by a test
            await self._client._flush_pending()  # noqa: SLF001  as above
        except Exception as error:  # noqa: BLE001  the next ones may be sendable
            limited(log, logging.WARNING, "unsent", "replies could not be sent: %s", error)

    def _let_go(self, taken: list[tuple[str, Answer]]) -> None:
        """They wait no more, whether they could be sent or not."""
        for _, answer in taken:
            if answer.sent is not None:
                answer.sent()
            else:
                self._uncounted -= len(answer.body)

    async def _publish(self, subject: str, answer: Answer) -> None:
        """While there is no connection: kept by the client, as far as it does, for the next one."""
        try:
            answer = self._fitting(subject, answer)
            await self._client.publish(subject, answer.body, headers=headers_of(answer))
        except Exception as error:  # noqa: BLE001  one reply must not stop the others
            said = (shown(subject), error)
            limited(log, logging.WARNING, "unsent", "a reply to %s could not be sent: %s", *said)
