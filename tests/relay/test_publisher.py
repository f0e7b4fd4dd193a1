"""Appending behind a known sequence, or not at all."""

import pytest
from nats.aio.client import Client
from nats.errors import ConnectionClosedError
from nats.js.errors import APIError

from fleetbus.relay.events import Message
from fleetbus.relay.publisher import WRONG_LAST_SEQUENCE, FencedPublisher
from fleetbus.relay.stream import StreamSettings, ensure_stream
from tests.relay.running import client_of, entities, stream_length


def event(name: str, *, body: bytes = b"{}") -> Message:
    return Message("events.task.completed.x", {"Nats-Msg-Id": name, "ce-subject": name}, body)


def transaction(*names: str) -> list[Message]:
    return [event(name) for name in names]


async def publisher_for(
    client: Client, *, atomic: bool = True, batch_bytes: int = 1_000_000
) -> FencedPublisher:
    await ensure_stream(client.jetstream(), StreamSettings())
    return FencedPublisher(client, atomic=atomic, batch_bytes=batch_bytes)


@pytest.mark.parametrize("atomic", [True, False])
class TestFence:
    async def test_returns_where_the_stream_ends(self, nats_url: str, atomic: bool) -> None:
        async with client_of(nats_url) as client:
            publisher = await publisher_for(client, atomic=atomic)

            assert await publisher.publish([transaction("a", "b"), transaction("c")], 0) == 3
            assert await publisher.publish([transaction("d")], 3) == 4
            assert await publisher.publish([], 4) == 4
            assert await entities(client, 4) == ["a", "b", "c", "d"]

    async def test_stores_nothing_behind_a_stream_that_went_on(
        self, nats_url: str, atomic: bool
    ) -> None:
        async with client_of(nats_url) as client:
            publisher = await publisher_for(client, atomic=atomic)
            await publisher.publish([transaction("a", "b")], 0)

            for stale in (transaction("c", "d"), transaction("e")):
                with pytest.raises(APIError) as refusal:
                    await publisher.publish([stale, transaction("f")], 1)
                assert refusal.value.err_code == WRONG_LAST_SEQUENCE
            assert await stream_length(client) == 2

    async def test_duplicates_are_stored_once(self, nats_url: str, atomic: bool) -> None:
        async with client_of(nats_url) as client:
            publisher = await publisher_for(client, atomic=atomic)
            await publisher.publish([transaction("a", "b")], 0)

            assert await publisher.publish([transaction("x", "b", "y"), transaction("a")], 2) == 4
            assert await entities(client, 4) == ["a", "b", "x", "y"]

    async def test_refuses_without_a_connection(self, nats_url: str, atomic: bool) -> None:
        async with client_of(nats_url) as client:
            publisher = await publisher_for(client, atomic=atomic)
        with pytest.raises(ConnectionClosedError):
            await publisher.publish([transaction("a", "b")], 0)


class TestBatches:
    async def test_an_incomplete_batch_leaves_nothing(self, nats_url: str) -> None:
        async with client_of(nats_url) as client:
            publisher = await publisher_for(client)
            too_large = event("too large", body=b"x" * (client.max_payload + 1))

            with pytest.raises(Exception, match="maximum payload"):
                await publisher.publish([[event("a"), event("b"), too_large]], 0)
            assert await stream_length(client) == 0

    async def test_sharing_a_batch_ends_where_it_gets_too_large(self, nats_url: str) -> None:
        async with client_of(nats_url) as client:
            publisher = await publisher_for(client, batch_bytes=5)
            names = [f"{n:02}" for n in range(10)]

            assert await publisher.publish([transaction(name) for name in names], 0) == 10
            assert await entities(client, 10) == names
