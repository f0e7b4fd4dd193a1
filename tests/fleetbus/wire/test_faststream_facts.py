"""What our wire relies on in FastStream and nats-py; an upgrade that changes it fails here."""

import asyncio
import inspect
from collections.abc import AsyncIterator

import nats
import pytest
from faststream.nats import NatsBroker
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from bus.kit.nats_io import flush

SUBJECT = "facts.here"


async def placeholder(_: bytes) -> None:
    raise AssertionError("a message came FastStream's own way")


@pytest.fixture
async def broker(nats_url: str) -> AsyncIterator[NatsBroker]:
    broker = NatsBroker(nats_url, logger=None, apply_types=False, graceful_timeout=None)
    await broker.connect()
    yield broker
    await broker.stop()


@pytest.fixture
async def client(nats_url: str) -> AsyncIterator[Client]:
    client = await nats.connect(nats_url)
    yield client
    await client.close()


def record_writes(client: Client) -> list[bytes]:
    """What the client writes from now on, in its order."""
    written: list[bytes] = []
    transport = client._transport
    assert transport is not None
    write, write_all = transport.write, transport.writelines

    def record(data: bytes) -> None:
        written.append(bytes(data))
        write(data)

    def record_all(pieces: list[bytes]) -> None:
        written.append(b"".join(pieces))
        write_all(pieces)

    transport.write = record  # type: ignore[assignment, method-assign]  # to see the order
    transport.writelines = record_all  # type: ignore[assignment, method-assign]  # as above
    return written


class TestSubscriber:
    async def test_an_instance_takes_a_consume_of_its_own(self, broker: NatsBroker) -> None:
        subscriber = broker.subscriber(SUBJECT)

        assert hasattr(subscriber, "__dict__"), "subscribers have slots: consume cannot be replaced"

    async def test_the_subscription_calls_it_with_the_raw_message(
        self, broker: NatsBroker, client: Client
    ) -> None:
        taken: asyncio.Queue[Msg] = asyncio.Queue()
        subscriber = broker.subscriber(SUBJECT, queue="group")
        subscriber(placeholder)
        subscriber.consume = taken.put  # type: ignore[assignment, method-assign]  # the fact itself
        await broker.start()
        await flush(broker._connection)  # type: ignore[arg-type]  # it is connected

        await client.publish(SUBJECT, b"\xff not json", reply="back", headers={"A": "b"})

        message = await asyncio.wait_for(taken.get(), 30)
        assert isinstance(message, Msg)
        assert (message.data, message.reply, message.headers) == (
            b"\xff not json",
            "back",
            {"A": "b"},
        )

    async def test_without_a_function_nothing_is_subscribed(self, broker: NatsBroker) -> None:
        bare, called = broker.subscriber("facts.bare"), broker.subscriber(SUBJECT)
        called(placeholder)
        await broker.start()

        assert bare.subscription is None
        assert isinstance(called.subscription, Subscription)

    async def test_it_passes_the_queue_and_the_limit_on(self, broker: NatsBroker) -> None:
        subscriber = broker.subscriber(SUBJECT, queue="group", pending_msgs_limit=7)
        subscriber(placeholder)
        await broker.start()

        subscription = subscriber.subscription
        assert isinstance(subscription, Subscription)
        assert subscription.queue == "group"
        assert subscription._pending_queue.maxsize == 7

    async def test_a_subscription_taken_from_it_is_left_alone_by_stop(
        self, broker: NatsBroker
    ) -> None:
        subscriber = broker.subscriber(SUBJECT)
        subscriber(placeholder)
        await broker.start()
        subscription, subscriber.subscription = subscriber.subscription, None
        assert isinstance(subscription, Subscription)

        await subscription.drain()  # type: ignore[no-untyped-call]  # nats-py leaves it so
        await broker.stop()

        assert subscription._closed


class TestBroker:
    async def test_connect_returns_the_client(self, nats_url: str) -> None:
        broker = NatsBroker(nats_url, logger=None)
        try:
            assert isinstance(await broker.connect(), Client)
        finally:
            await broker.stop()


class TestNatsPy:
    async def test_draining_lets_what_was_sent_arrive(self, client: Client) -> None:
        """Drain unsubscribes, and only then waits until the queue is empty."""
        taken: list[bytes] = []

        async def take(message: Msg) -> None:
            await asyncio.sleep(0)
            taken.append(message.data)

        subscription = await client.subscribe(SUBJECT, cb=take)
        for n in range(100):
            await client.publish(SUBJECT, b"%d" % n)
        await client.flush()

        await subscription.drain()  # type: ignore[no-untyped-call]  # nats-py leaves it so

        assert taken == [b"%d" % n for n in range(100)]

    async def test_its_flush_overtakes_what_waits_for_its_writer(self, client: Client) -> None:
        written = record_writes(client)
        await client.subscribe(SUBJECT)
        await client.flush()

        assert written[0] == b"PING\r\n", "its flush waits: ours has nothing to add any more"

    async def test_our_flush_does_not(self, client: Client) -> None:
        written = record_writes(client)
        await client.subscribe(SUBJECT)
        await flush(client)

        assert [data.split()[0] for data in written if data] == [b"SUB", b"PING"]

    async def test_after_our_flush_was_cancelled_it_still_hears(self, client: Client) -> None:
        taken: asyncio.Queue[Msg] = asyncio.Queue()
        await client.subscribe(SUBJECT, cb=taken.put)
        flushing = asyncio.create_task(flush(client))
        while not client._pongs:  # noqa: ASYNC110  it is for the moment before the answer
            await asyncio.sleep(0)
        flushing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await flushing

        await client.publish(SUBJECT, b"after")

        assert (await asyncio.wait_for(taken.get(), 30)).data == b"after"

    async def test_an_error_in_a_callback_does_not_stop_the_subscription(
        self, nats_url: str
    ) -> None:
        errors: list[Exception] = []
        done = asyncio.Event()

        async def note(error: Exception) -> None:
            errors.append(error)

        async def take(message: Msg) -> None:
            if message.data == b"bad":
                raise ValueError("bad")
            done.set()

        client = await nats.connect(nats_url, error_cb=note)
        await client.subscribe(SUBJECT, cb=take)
        await client.publish(SUBJECT, b"bad")
        await client.publish(SUBJECT, b"good")
        await asyncio.wait_for(done.wait(), 30)
        await client.close()

        assert [type(error) for error in errors] == [ValueError]

    async def test_publish_takes_a_subject_a_payload_and_headers(self) -> None:
        parameters = inspect.signature(Client.publish).parameters

        assert list(parameters)[1:5] == ["subject", "payload", "reply", "headers"]
