"""Appending to the stream in order, behind a known sequence or not at all."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol
from uuid import uuid4

from nats.aio.client import Client
from nats.js.errors import APIError

from fleetbus.server.relay.events import BATCH_LIMIT, Message
from fleetbus.server.relay.sending import must_be_connected, send

# Error codes are those of server/errors.json of nats-server.
WRONG_LAST_SEQUENCE: Final = 10071
BATCHES_NOT_ENABLED: Final = 10174
BATCH_INCOMPLETE: Final = 10176
HEADER_NOT_IN_BATCHES: Final = 10177
BATCH_TOO_LARGE: Final = 10199
DUPLICATE_IN_BATCH: Final = 10201
TOO_MANY_BATCHES: Final = 10210

_RATHER_SINGLY: Final = {
    BATCHES_NOT_ENABLED,
    BATCH_INCOMPLETE,
    HEADER_NOT_IN_BATCHES,
    BATCH_TOO_LARGE,
    DUPLICATE_IN_BATCH,
    TOO_MANY_BATCHES,
}
"""Refusals of a batch as such: nothing of it is stored, and its messages may be stored singly."""


class ConsideredDuplicate(Exception):
    """The server remembers the id of an event; that does not say that the stream holds it."""


class Publisher(Protocol):
    """How transactions get into the stream."""

    async def publish(self, transactions: Sequence[Sequence[Message]], after: int) -> int:
        """Append in order to a stream that ends with sequence `after`; returns where it then ends.

        If it raises, a prefix may be stored, but never anything without all that goes before it.
        """
        ...


class FencedPublisher:
    """Publishes atomic batches, each on the condition that the stream ends where it should.

    Small transactions share a batch. One that is larger than the server takes becomes several,
    so it is in order and unmixed, but not atomic. What the server does not take as a batch is
    published message by message, each behind the one before it.
    """

    def __init__(
        self,
        client: Client,
        *,
        atomic: bool,
        strict: bool = False,
        batch_bytes: int = 8 * 1024 * 1024,
        timeout: float = 5.0,
    ) -> None:
        """Strict, it raises `TakenForDuplicate` and leaves it to the caller what that means."""
        self._client = client
        self._atomic = atomic
        self._strict = strict
        self._batch_bytes = batch_bytes
        self._timeout = timeout

    async def publish(self, transactions: Sequence[Sequence[Message]], after: int) -> int:
        """See `Publisher.publish`."""
        for batch in _packed(transactions, self._batch_bytes):
            after = await self._append(batch, after)
        return after

    async def _append(self, batch: list[Message], after: int) -> int:
        if len(batch) == 1 or not self._atomic:
            return await self._append_singly(batch, after)
        try:
            return await self._append_whole(batch, after)
        except APIError as refusal:
            if refusal.err_code not in _RATHER_SINGLY:
                raise
            if self._strict and refusal.err_code == DUPLICATE_IN_BATCH:
                raise ConsideredDuplicate from refusal
            self._atomic = refusal.err_code != BATCHES_NOT_ENABLED
            return await self._append_singly(batch, after)

    async def _append_whole(self, batch: list[Message], after: int) -> int:
        """Append a batch, and once more if it got lost on its way.

        The server forgets a batch that stops for ten seconds. It also calls one incomplete whose
        beginning it refused because too many are open: only the commit asks for an answer.
        """
        try:
            return await self._append_atomically(batch, after)
        except APIError as refusal:
            if refusal.err_code != BATCH_INCOMPLETE:
                raise
            return await self._append_atomically(batch, after)

    async def _append_atomically(self, batch: list[Message], after: int) -> int:
        batch_id = {"Nats-Batch-Id": uuid4().hex}
        fence = {"Nats-Expected-Last-Sequence": str(after)}
        numbered = [
            message._replace(
                headers={**message.headers, **batch_id, "Nats-Batch-Sequence": str(place)}
            )
            for place, message in enumerate(batch, start=1)
        ]
        numbered[0].headers.update(fence)
        await send(self._client, numbered[:-1])
        # Only the commit is answered: it reports whatever was wrong with the messages before it.
        ack = await self._request(numbered[-1], {"Nats-Batch-Commit": "1"})
        return int(ack["seq"])

    async def _append_singly(self, batch: list[Message], after: int) -> int:
        for message in batch:
            ack = await self._request(message, {"Nats-Expected-Last-Sequence": str(after)})
            if not ack.get("duplicate"):
                after = int(ack["seq"])
            elif self._strict:
                raise ConsideredDuplicate(message.headers["Nats-Msg-Id"])
        return after

    async def _request(self, message: Message, headers: dict[str, str]) -> dict[str, Any]:
        must_be_connected(self._client)
        reply = await self._client.request(
            message.subject,
            message.body,
            timeout=self._timeout,
            headers={**message.headers, **headers},
        )
        ack: dict[str, Any] = json.loads(reply.data)
        if "error" in ack:
            raise APIError.from_error(ack["error"])
        return ack


def _packed(transactions: Sequence[Sequence[Message]], limit: int) -> Iterator[list[Message]]:
    """Batches of whole transactions, split only where one alone is too large for the server."""
    batch: list[Message] = []
    size = 0
    for transaction in transactions:
        weight = sum(len(message.body) for message in transaction)
        if batch and (len(batch) + len(transaction) > BATCH_LIMIT or size + weight > limit):
            yield batch
            batch, size = [], 0
        batch.extend(transaction)
        size += weight
        while len(batch) > BATCH_LIMIT:
            yield batch[:BATCH_LIMIT]
            batch = batch[BATCH_LIMIT:]
    if batch:
        yield batch
