"""Appending to the stream in order, behind a known sequence or not at all."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol
from uuid import uuid4

from nats.aio.client import Client
from nats.errors import ConnectionClosedError
from nats.js.errors import APIError

from fleetbus.relay.events import Message

SERVER_BATCH_LIMIT: Final = 1000
WRONG_LAST_SEQUENCE: Final = 10071
DUPLICATE_IN_BATCH: Final = 10201


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
    so it is in order and unmixed, but not atomic.
    """

    def __init__(
        self,
        client: Client,
        *,
        atomic: bool,
        batch_bytes: int = 8 * 1024 * 1024,
        timeout: float = 5.0,
    ) -> None:
        self._client = client
        self._atomic = atomic
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
            return await self._append_atomically(batch, after)
        except APIError as refusal:
            if refusal.err_code != DUPLICATE_IN_BATCH:
                raise
            # The stream knows some of them although it does not hold them after the sequence we
            # started from: single publishes store the others.
            return await self._append_singly(batch, after)

    async def _append_atomically(self, batch: list[Message], after: int) -> int:
        batch_id = uuid4().hex
        fence = {"Nats-Expected-Last-Sequence": str(after)}
        for place, message in enumerate(batch, start=1):
            headers = {
                **message.headers,
                **fence,
                "Nats-Batch-Id": batch_id,
                "Nats-Batch-Sequence": str(place),
            }
            fence = {}
            if place < len(batch):
                self._must_be_connected()
                await self._client.publish(message.subject, message.body, headers=headers)
        # Only the commit is answered: it reports whatever was wrong with the messages before it.
        ack = await self._request(batch[-1], {**headers, "Nats-Batch-Commit": "1"})
        return int(ack["seq"])

    async def _append_singly(self, batch: list[Message], after: int) -> int:
        for message in batch:
            headers = {**message.headers, "Nats-Expected-Last-Sequence": str(after)}
            ack = await self._request(message, headers)
            if not ack.get("duplicate"):
                after = int(ack["seq"])
        return after

    async def _request(self, message: Message, headers: dict[str, str]) -> dict[str, Any]:
        self._must_be_connected()
        reply = await self._client.request(
            message.subject, message.body, timeout=self._timeout, headers=headers
        )
        ack: dict[str, Any] = json.loads(reply.data)
        if "error" in ack:
            raise APIError.from_error(ack["error"])
        return ack

    def _must_be_connected(self) -> None:
        """Refuse instead of buffering: what the client sends after a reconnect would be stale."""
        if not self._client.is_connected:
            raise ConnectionClosedError


def _packed(transactions: Sequence[Sequence[Message]], limit: int) -> Iterator[list[Message]]:
    """Batches of whole transactions, split only where one alone is too large for the server."""
    batch: list[Message] = []
    size = 0
    for transaction in transactions:
        weight = sum(len(message.body) for message in transaction)
        if batch and (len(batch) + len(transaction) > SERVER_BATCH_LIMIT or size + weight > limit):
            yield batch
            batch, size = [], 0
        batch.extend(transaction)
        size += weight
        while len(batch) > SERVER_BATCH_LIMIT:
            yield batch[:SERVER_BATCH_LIMIT]
            batch = batch[SERVER_BATCH_LIMIT:]
    if batch:
        yield batch
