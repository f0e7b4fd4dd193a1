"""Our client, under whatever a server, a message or a callback does."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from nats.aio.msg import Msg
from nats.errors import ConnectionReconnectingError, MaxPayloadError

from bus.kit.nats_io import flush
from fleetbus.client.connection import client as steady
from fleetbus.client.connection.client import RepliesRefused, SteadyClient, connect
from tests.bus.asking import eventually
from tests.fleetbus.connection.raw import BLOCKS, BODIES, TOKENS, RawSession, raw_session
from tests.fleetbus.connection.servers import User, configured

SEVERAL = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Hearing:
    """A client with all that it heard."""

    def __init__(self, client: SteadyClient) -> None:
        self.client = client
        self.heard: list[Msg] = []

    async def take(self, message: Msg) -> None:
        self.heard.append(message)

    async def hears(self, data: bytes) -> None:
        """It still does."""
        await self.client.publish("facts.probe", data)
        await eventually(lambda: any(message.data == data for message in self.heard))


@pytest.fixture
async def hearing(nats_url: str) -> AsyncIterator[Hearing]:
    client = await connect(nats_url)
    hearing = Hearing(client)
    await client.subscribe("facts.>", cb=hearing.take)
    await flush(client)
    yield hearing
    await client.close()


@pytest.fixture
async def raw(nats_url: str) -> AsyncIterator[RawSession]:
    async with raw_session(nats_url) as session:
        yield session


class TestMessages:
    @SEVERAL
    @given(TOKENS, TOKENS, BLOCKS, BODIES)
    async def test_none_ends_the_connection(
        self,
        hearing: Hearing,
        raw: RawSession,
        token: bytes,
        reply: bytes,
        block: bytes | None,
        body: bytes,
    ) -> None:
        tasks = hearing.client._own_tasks()
        raw.send(b"facts." + token, body, reply=b"r." + reply, block=block)
        await raw.settled()

        hearing.heard.clear()
        await hearing.hears(b"after")
        assert hearing.client._own_tasks() == tasks
        assert hearing.client.stats["reconnects"] == 0

    async def test_what_is_no_text_arrives_with_a_mark(
        self, hearing: Hearing, raw: RawSession
    ) -> None:
        raw.send(b"facts.\xff\x0bb", b"x", reply=b"r.\xfe\x0c")
        await raw.settled()
        await eventually(lambda: hearing.heard)
        [message] = hearing.heard
        assert (message.subject, message.reply) == ("facts.\ufffd\x0bb", "r.\ufffd\x0c")

    async def test_a_status_that_somebody_stored_is_none(self, nats_url: str) -> None:
        """Else a reader of the stream would take it for a word of the server."""
        client = await connect(nats_url)
        js = client.jetstream()
        await js.add_stream(name="FACTS", subjects=["facts.>"])
        async with raw_session(nats_url) as raw:
            for block in (
                b"NATS/1.0 404 No Messages\r\n\r\n",
                b"NATS/1.0 100 FlowControl Request\r\n\r\n",
                b"NATS/1.0\r\nStatus: 409\r\nDescription: Consumer Deleted\r\n\r\n",
                b"NATS/1.0 \xff\xff\r\n\r\n",
            ):
                raw.send(b"facts.a\x0b\xff", b"", block=block)
            raw.send(b"facts.last", b"last")
            await raw.settled()

        subscription = await js.pull_subscribe("facts.>", stream="FACTS")
        messages = await subscription.fetch(5, timeout=5)

        assert [message.metadata.sequence.stream for message in messages] == [1, 2, 3, 4, 5]
        assert not any((message.headers or {}).get("Status") for message in messages)
        await client.close()


class TestTasks:
    async def test_a_pong_that_nobody_waits_for_changes_nothing(
        self, hearing: Hearing, caplog: pytest.LogCaptureFixture
    ) -> None:
        given_up = asyncio.get_running_loop().create_future()
        given_up.cancel()
        await hearing.client._send_ping(given_up)
        await flush(hearing.client)
        await hearing.hears(b"after")
        assert hearing.client.stats["reconnects"] == 0
        assert caplog.messages == []

    @pytest.mark.parametrize("name", ["_reading_task", "_flusher_task", "_ping_interval_task"])
    async def test_one_that_ends_is_a_connection_that_is_made_anew(
        self, hearing: Hearing, name: str
    ) -> None:
        getattr(hearing.client, name).cancel()
        await eventually(lambda: hearing.client.stats["reconnects"] == 1)
        await hearing.hears(b"after")

    async def test_a_callback_that_is_cancelled_does_not_end_its_subscription(
        self, hearing: Hearing
    ) -> None:
        heard: list[bytes] = []

        async def take(message: Msg) -> None:
            heard.append(message.data)
            if message.data == b"bad":
                raise asyncio.CancelledError

        subscription = await hearing.client.subscribe("other", cb=take)
        await hearing.client.publish("other", b"bad")
        await hearing.client.publish("other", b"good")
        await eventually(lambda: heard == [b"bad", b"good"])

        await subscription.unsubscribe()
        await hearing.client.publish("other", b"late")
        await hearing.hears(b"after")
        assert heard == [b"bad", b"good"]

    async def test_a_callback_for_errors_that_fails_ends_nothing(self, nats_url: str) -> None:
        async def fail(_: Exception) -> None:
            raise ValueError("in the callback")

        client = await connect(nats_url, error_cb=fail)
        hearing = Hearing(client)

        async def take(message: Msg) -> None:
            await hearing.take(message)
            raise ValueError("in the subscription")

        await client.subscribe("facts.>", cb=take)
        await hearing.hears(b"one")
        await hearing.hears(b"two")
        await client.close()

    async def test_what_is_no_protocol_at_all_makes_it_connect_anew(self, hearing: Hearing) -> None:
        assert hearing.client._transport is not None
        reader = hearing.client._transport._io_reader  # type: ignore[attr-defined]  # to put words in
        reader.feed_data(b"HELLO\r\n")
        await eventually(lambda: hearing.client.stats["reconnects"] == 1)
        await hearing.hears(b"after")

    async def test_an_odd_word_of_the_server_changes_nothing(self, hearing: Hearing) -> None:
        assert hearing.client._transport is not None
        reader = hearing.client._transport._io_reader  # type: ignore[attr-defined]  # to put words in
        reader.feed_data(b"INFO {odd\r\nINFO []\r\nPONG\r\n-ERR\r\n-ERR '\xff'\r\n+OK\r\n")
        await hearing.hears(b"after")
        assert hearing.client.stats["reconnects"] == 0


class TestServers:
    async def test_another_password_for_a_while(self, data_dir: Path) -> None:
        async with configured(data_dir, User("a")) as server:
            client = await connect(server.url_of("a"), reconnect_time_wait=0.05)
            hearing = Hearing(client)
            await client.subscribe("facts.>", cb=hearing.take)
            await hearing.hears(b"before")

            server.change("a", password="another")
            await server.reload()
            await eventually(lambda: not client.is_connected)
            await eventually(lambda: server.log.count("authentication error") >= 3)
            assert not client.is_closed
            server.change("a", password="secret")
            await server.reload()

            await eventually(lambda: client.is_connected)
            await hearing.hears(b"after")
            await client.close()

    async def test_a_message_that_is_too_large(self, data_dir: Path) -> None:
        """The server ends the connection of whoever sends one."""
        async with configured(data_dir, User("a")) as server:
            client = await connect(server.url_of("a"), reconnect_time_wait=0.05)
            hearing = Hearing(client)
            await client.subscribe("facts.>", cb=hearing.take)
            await client._send_command(b"PUB facts.a 2000000\r\n" + b"x" * 2_000_000 + b"\r\n")
            # On the connection that ends, or on the next one.
            with contextlib.suppress(ConnectionReconnectingError):
                await flush(client)
            await eventually(lambda: client.stats["reconnects"] == 1)
            await hearing.hears(b"after")
            await client.close()

    async def test_the_largest_message_is_what_the_server_takes_now(self, data_dir: Path) -> None:
        async with configured(data_dir, User("a")) as server:
            client = await connect(server.url_of("a"), reconnect_time_wait=0.05)
            assert client.max_payload == 1024 * 1024
            server.max_payload = 5000
            await server.stop()
            await server.start()
            await eventually(lambda: client.is_connected and client.max_payload == 5000)
            with pytest.raises(MaxPayloadError):
                await client.publish("facts.a", b"x" * 5001)
            await client.close()

    async def test_the_largest_message_of_a_server_that_changes_it_while_it_runs(
        self, data_dir: Path
    ) -> None:
        """It may tell so, or end the connection of the first who sends more; both do."""
        async with configured(data_dir, User("a")) as server:
            client = await connect(server.url_of("a"), reconnect_time_wait=0.05)
            hearing = Hearing(client)
            await client.subscribe("facts.>", cb=hearing.take)
            server.max_payload = 5000
            await server.reload()
            if client.max_payload != 5000:
                await client.publish("facts.a", b"x" * 10_000)
            await eventually(lambda: client.max_payload == 5000)
            await eventually(lambda: client.is_connected)
            await hearing.hears(b"after")
            await client.close()

    async def test_the_largest_message_that_it_is_told_of_counts_from_then_on(
        self, hearing: Hearing
    ) -> None:
        assert hearing.client._transport is not None
        reader = hearing.client._transport._io_reader  # type: ignore[attr-defined]  # to put words in
        reader.feed_data(b'INFO {"max_payload": 100}\r\nINFO {"max_payload": "x"}\r\n')
        await eventually(lambda: hearing.client.max_payload == 100)
        with pytest.raises(MaxPayloadError):
            await hearing.client.publish("facts.a", b"x" * 101)
        await hearing.hears(b"after")

    async def test_what_was_refused_is_asked_for_until_it_is_allowed(
        self, data_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(steady, "REFUSED_INTERVAL", 0.1)
        strict = '{ publish: ">", subscribe: { allow: ">", deny: "facts.>" } }'
        async with configured(data_dir, User("a", permissions=strict)) as server:
            client = await connect(server.url_of("a"), reconnect_time_wait=0.05)
            hearing = Hearing(client)
            await client.subscribe("facts.>", cb=hearing.take)
            await flush(client)
            assert client.refused
            tries = server.log.count("Subscription Violation")
            await eventually(lambda: server.log.count("Subscription Violation") > tries + 2)
            assert client.refused

            server.change("a", permissions='{ publish: ">", subscribe: ">" }')
            await server.reload()
            await eventually(lambda: not client.refused)
            await hearing.hears(b"now")

            server.change("a", permissions=strict)
            await server.reload()
            await eventually(lambda: client.refused)
            await client.close()

    async def test_without_an_inbox_of_its_own_a_request_fails_at_once(
        self, data_dir: Path
    ) -> None:
        mine = '{ publish: ">", subscribe: "_INBOX.a.>" }'
        async with configured(data_dir, User("a", permissions=mine)) as server:
            client = await connect(server.url_of("a"))
            for _ in range(2):
                with pytest.raises(RepliesRefused):
                    await client.request("$JS.API.INFO", timeout=30)
            await client.close()
            client = await connect(server.url_of("a"), inbox_prefix="_INBOX.a")
            assert (await client.request("$JS.API.INFO", timeout=30)).data
            await client.close()

    @pytest.mark.parametrize("prefix", ["_INBOX.", "a..b", "a b", "_INBOX.*", "_INBOX.>", "\x00"])
    async def test_what_cannot_be_an_inbox_is_refused(self, nats_url: str, prefix: str) -> None:
        with pytest.raises(ValueError, match="cannot be the prefix of an inbox"):
            await connect(nats_url, inbox_prefix=prefix)
