"""Appending behind a known sequence, or not at all."""

from string import Template
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import ConnectionClosedError, MaxPayloadError
from nats.js.errors import APIError

from bus.kit.nats_io import flush
from fleetbus.embedded import nats
from fleetbus.embedded.nats import EmbeddedNats
from fleetbus.server.relay.events import Message
from fleetbus.server.relay.publisher import WRONG_LAST_SEQUENCE, FencedPublisher
from fleetbus.server.relay.sending import send
from fleetbus.server.relay.stream import StreamSettings, ensure_stream
from tests.fleetbus.relay.running import client_of, entities, stream_length


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


class TestRefusedBatches:
    async def test_too_many_batches_in_flight(self, own_nats: EmbeddedNats) -> None:
        """A server takes 50 open batches of a stream. Order and fence hold without one."""
        async with client_of(own_nats.url) as client:
            publisher = await publisher_for(client)
            for number in range(50):
                await begin_batch(client, f"open-{number}")

            assert await publisher.publish([transaction("a", "b"), transaction("c")], 0) == 3
            with pytest.raises(APIError) as refusal:
                await publisher.publish([transaction("d", "e")], 1)

            assert refusal.value.err_code == WRONG_LAST_SEQUENCE
            assert await entities(client, 3) == ["a", "b", "c"]

    async def test_a_stream_that_was_told_to_take_none(self, nats_url: str) -> None:
        async with client_of(nats_url) as client:
            publisher = await publisher_for(client)
            js = client.jetstream()
            info = await js.stream_info("EVENTS")
            await js.update_stream(info.config.evolve(allow_atomic=False))

            assert await publisher.publish([transaction("a", "b")], 0) == 2
            assert await publisher.publish([transaction("c", "d")], 2) == 4
            assert await entities(client, 4) == ["a", "b", "c", "d"]

    async def test_a_server_that_takes_smaller_ones(
        self, own_nats: EmbeddedNats, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        small = "jetstream { limits { batch { max_msgs: 3 } }"
        config = nats.CONFIG.template.replace("jetstream {", small)
        monkeypatch.setattr(nats, "CONFIG", Template(config))
        await own_nats.stop()
        await own_nats.start()
        async with client_of(own_nats.url) as client:
            publisher = await publisher_for(client)
            names = [f"{n:02}" for n in range(10)]

            assert await publisher.publish([transaction(*names)], 0) == 10
            assert await entities(client, 10) == names

    async def test_one_that_the_server_forgot_is_sent_again_whole(
        self, nats_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The first of its messages gets lost on the way."""
        async with client_of(nats_url) as client:
            publisher = await publisher_for(client)
            send = client._send_command
            lost: list[bytes] = []

            async def lose_one(command: bytes, *args: Any) -> None:
                if not lost and b"HPUB events" in command:
                    lost.append(command)
                    return
                await send(command, *args)

            monkeypatch.setattr(client, "_send_command", lose_one)
            assert await publisher.publish([transaction("a", "b", "c")], 0) == 3

            assert b"Nats-Msg-Id: a" in lost[0]
            stored = await client.jetstream().get_msg("EVENTS", 1)
            assert (stored.headers or {})["Nats-Batch-Id"]
            assert await entities(client, 3) == ["a", "b", "c"]

    async def test_a_batch_that_stopped_halfway_cannot_end_after_another(
        self, nats_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As a relay does that was paused while another one took over."""
        async with client_of(nats_url) as client, client_of(nats_url) as other_client:
            paused = await publisher_for(client)
            other = await publisher_for(other_client)
            request = client.request

            async def late(*args: Any, **kwargs: Any) -> Msg:
                await other.publish([transaction("x", "y")], 0)
                return await request(*args, **kwargs)

            monkeypatch.setattr(client, "request", late)
            with pytest.raises(APIError) as refusal:
                await paused.publish([transaction("a", "b", "c")], 0)

            assert refusal.value.err_code == WRONG_LAST_SEQUENCE
            assert await entities(other_client, 2) == ["x", "y"]


async def begin_batch(client: Client, name: str) -> None:
    headers = {"Nats-Batch-Id": name, "Nats-Batch-Sequence": "1"}
    begun = await client.request("events.task.completed.x", b"{}", headers=headers, timeout=10)
    assert not begun.data


class TestSending:
    async def test_messages_arrive_as_those_of_the_client_do(self, nats_url: str) -> None:
        """It writes the protocol itself, into a buffer that is the client's own."""
        headers = {"Nats-Msg-Id": "ü", "ce-subject": "a: b", "Fleet-Cause": "one\r\nline"}
        told = [Message(f"events.x.{n}", headers, b"\x00\r\n" * n) for n in range(250)]
        async with client_of(nats_url) as client:
            subscription = await client.subscribe("events.>")
            await flush(client)
            await send(client, told)
            sent = [await subscription.next_msg(timeout=5) for _ in told]
            for message in told:
                await client.publish(message.subject, message.body, headers=message.headers)
            published = [await subscription.next_msg(timeout=5) for _ in told]

        assert [message.data for message in sent] == [message.body for message in told]
        for one, other in zip(sent, published, strict=True):
            assert (one.subject, one.headers, one.data) == (
                other.subject,
                other.headers,
                other.data,
            )

    async def test_headers_count_for_the_largest_payload(self, nats_url: str) -> None:
        async with client_of(nats_url) as client:
            body = b"x" * client.max_payload
            with pytest.raises(MaxPayloadError):
                await send(client, [Message("events.x.y", {"Nats-Msg-Id": "a"}, body)])
