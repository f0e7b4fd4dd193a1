"""What nats-py itself does that our client has to mend; an upgrade that changes it fails here."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from bus.kit.nats_io import flush
from tests.bus.asking import eventually
from tests.fleetbus.connection.raw import RawSession, raw_session
from tests.fleetbus.connection.servers import User, configured


@pytest.fixture
async def client(nats_url: str) -> AsyncIterator[Client]:
    client = await nats.connect(nats_url)
    yield client
    await client.close()


@pytest.fixture
async def raw(nats_url: str) -> AsyncIterator[RawSession]:
    async with raw_session(nats_url) as session:
        yield session


class TestNatsPy:
    @pytest.mark.parametrize(
        ("subject", "reply", "block"),
        [
            (b"facts.a", b"", b"NATS/1.0 \xff\xff\r\n\r\n"),
            (b"facts.a", b"", b"NATS/1.0"),
            (b"facts.\xff", b"", None),
            (b"facts.a", b"r.\xff", None),
        ],
    )
    async def test_what_is_no_text_ends_its_reader_and_not_its_connection(
        self,
        client: Client,
        raw: RawSession,
        caplog: pytest.LogCaptureFixture,
        subject: bytes,
        reply: bytes,
        block: bytes | None,
    ) -> None:
        await client.subscribe("facts.>")
        await flush(client)

        raw.send(subject, b"x", reply=reply, block=block)
        await raw.settled()

        assert client._reading_task is not None
        with caplog.at_level(logging.CRITICAL):
            await eventually(client._reading_task.done)
        assert client.is_connected, "it connects anew: ours has nothing to mend any more"

    async def test_a_pong_that_nobody_waits_for_ends_its_reader(self, client: Client) -> None:
        given_up = asyncio.get_running_loop().create_future()
        given_up.cancel()

        await client._send_ping(given_up)

        assert client._reading_task is not None
        await eventually(client._reading_task.done)
        assert client.is_connected

    async def test_a_callback_that_is_cancelled_ends_its_subscription(self, client: Client) -> None:
        async def take(_: Msg) -> None:
            raise asyncio.CancelledError

        subscription = await client.subscribe("facts.a", cb=take)
        await client.publish("facts.a")

        task: asyncio.Task[None] | None = getattr(subscription, "_wait_for_msgs_task", None)
        assert task is not None, "subscriptions have no task of this name any more"
        await eventually(task.done)

    async def test_an_error_of_the_server_closes_it_for_good(self, data_dir: Path) -> None:
        async with configured(data_dir, User("a")) as server:
            client = await nats.connect(server.url_of("a"), reconnect_time_wait=0.05)
            server.change("a", password="another")
            await server.reload()
            await eventually(lambda: client.is_closed or client.is_reconnecting)
            await eventually(lambda: client.is_closed)

    async def test_it_does_not_ask_again_for_what_was_refused(self, data_dir: Path) -> None:
        async with configured(data_dir, User("a", permissions='{ subscribe: "other" }')) as server:
            errors: list[Exception] = []

            async def note(error: Exception) -> None:
                errors.append(error)

            client = await nats.connect(server.url_of("a"), error_cb=note)
            await client.subscribe("facts.a")
            await flush(client)
            assert 'permissions violation for subscription to "facts.a"' in str(errors[0]).lower()
            server.change("a", permissions='{ subscribe: ">" }')
            await server.reload()
            await flush(client)
            assert 1 in client._subs
            await client.close()
