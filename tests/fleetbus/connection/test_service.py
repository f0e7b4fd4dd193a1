"""A running service, under whatever bytes anybody sends to whatever it listens to."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nats.js.api import AckPolicy, ConsumerConfig

from bus.contract.errors import InternalError
from bus.kit.logs import LINES
from bus.running.failures import refusal_for
from bus.running.registry import Registry
from contracts.planning.tasks import CreateTask, ListTasks
from fleetbus.client import Bus, connect
from fleetbus.server.config import Settings
from fleetbus.server.service import Service
from tests.bus.asking import eventually
from tests.fleetbus.connection.raw import BLOCKS, BODIES, TOKENS, RawSession, raw_session
from tests.fleetbus.connection.servers import User, configured

SEVERAL = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

SUBJECTS = st.one_of(
    st.sampled_from(
        [
            b"db.meta.operations",
            b"db.tasks.create",
            b"db.events.wait",
            b"$SRV.PING",
            b"$SRV.INFO.planning",
            b"$SRV.STATS",
            b"_fleetbus.outbox",
            b"_fleetbus.published",
            b"_fleetbus.reconcile",
            b"_fleetbus.probe",
        ]
    ),
    TOKENS.map(lambda token: b"$SRV." + token),
    TOKENS.map(lambda token: b"$SRV.PING." + token),
    TOKENS.map(lambda token: b"_fleetbus." + token),
)

REPLIES = st.one_of(
    st.sampled_from([b"", b"_INBOX.a", b"_INBOX.a.\xff", b"_INBOX.\x0b", b"_INBOX.*", b"events.x"]),
    TOKENS,
    TOKENS.map(lambda token: b"_INBOX." + token),
    st.integers(1000, 3900).map(lambda length: b"_INBOX." + b"a" * length),
)

FOREIGN = [
    b"events.task.completed.x",
    b"db.tasks.create",
    b"$JS.API.STREAM.DELETE.EVENTS",
    b"$JS.API.STREAM.PURGE.EVENTS",
    b"_fleetbus.published",
    b"$SRV.PING",
    b"back",
    b"_INBOX.a\xff",
    b"_INBOX.a\x0b",
]


@pytest.fixture
async def raw(service: Service, nats_url: str) -> AsyncIterator[RawSession]:
    assert service.client.is_connected
    async with raw_session(nats_url) as session:
        yield session


class TestAnyBytes:
    @SEVERAL
    @given(st.lists(st.tuples(SUBJECTS, REPLIES, BLOCKS, BODIES), min_size=1, max_size=8))
    async def test_it_answers_afterwards(
        self,
        service: Service,
        bus: Bus,
        raw: RawSession,
        messages: list[tuple[bytes, bytes, bytes | None, bytes]],
    ) -> None:
        for subject, reply, block, body in messages:
            raw.send(subject, body, reply=reply, block=block)
        await raw.settled()

        await bus.call(ListTasks(limit=1), timeout=5)
        assert service.client.stats["reconnects"] == 0
        assert service.can_serve()

    async def test_the_relay_publishes_on(
        self, service: Service, bus: Bus, raw: RawSession
    ) -> None:
        for subject in (b"_fleetbus.outbox", b"_fleetbus.reconcile", b"_fleetbus.published"):
            for reply in (b"", b"_INBOX.\xff", b"$JS.API.STREAM.DELETE.EVENTS"):
                raw.send(subject, b"\xff", reply=reply, block=b"NATS/1.0 \xff\r\n\r\n")
        await raw.settled()
        told = await bus.request(CreateTask(name="one"))
        await bus.settled(told)
        assert service.client.stats["reconnects"] == 0

    @pytest.mark.parametrize(
        "block",
        [
            b"NATS/1.0 \xff\xff\r\n\r\n",
            b"hello",
            b"NATS/1.0\r\nNats-Msg-Id k\r\n\r\n",
            b"\xff" * 9000,
        ],
    )
    async def test_a_request_with_headers_that_are_none_is_refused(
        self, raw: RawSession, bus: Bus, block: bytes
    ) -> None:
        raw.subscribe(b"_INBOX.me")
        raw.send(b"db.tasks.create", b'{"name": "x"}', reply=b"_INBOX.me", block=block)
        answer = await raw.arrival()
        problem = json.loads(answer.body)
        assert (answer.status, problem["type"]) == (400, "invalid_request")
        assert problem["errors"][0]["field"] == "headers"
        assert (await bus.call(ListTasks())).items == []


class TestReplySubjects:
    @pytest.mark.parametrize("reply", FOREIGN)
    async def test_with_another_than_an_inbox_nothing_is_done(
        self, service: Service, bus: Bus, raw: RawSession, reply: bytes
    ) -> None:
        raw.subscribe(b">" if reply.startswith(b"back") else reply)
        raw.send(b"db.tasks.create", b'{"name": "x"}', reply=reply)
        raw.send(b"db.tasks.list", b"{}", reply=reply)
        await raw.settled()
        await bus.call(ListTasks())
        arrived = await raw.settled()

        assert (await bus.call(ListTasks())).items == []
        assert not [message for message in arrived if message.subject == reply and message.body]
        stats = service.dispatcher.stats.operations["db.tasks.create"]
        assert (stats.requests, stats.unanswerable) == (0, 1)
        assert service.replies.refused["db.tasks.create"] == 1
        assert service.replies.refused["db.tasks.list"] == 1

    async def test_the_stream_is_as_it_was(
        self, service: Service, bus: Bus, raw: RawSession
    ) -> None:
        await bus.settled(await bus.request(CreateTask(name="one")))
        for reply in (b"$JS.API.STREAM.DELETE.EVENTS", b"events.task.completed.x"):
            for subject in (
                b"_fleetbus.reconcile",
                b"$SRV.PING",
                b"$SRV.STATS.meta",
                b"db.tasks.list",
            ):
                raw.send(subject, b"", reply=reply)
        await raw.settled()
        await eventually(lambda: service.replies.refused["_fleetbus.reconcile"] == 2)
        await bus.settled(await bus.request(CreateTask(name="two")))
        assert (await bus.nats.jetstream().stream_info("EVENTS")).state.last_seq == 2
        assert service.replies.refused["$SRV"] == 4

    async def test_a_stream_that_delivers_to_an_operation_has_nothing_done(
        self, service: Service, bus: Bus
    ) -> None:
        """The server publishes what a consumer delivers, and is told where to by anybody."""
        js = bus.nats.jetstream()
        await js.add_stream(name="TRAP", subjects=["trap"])
        config = ConsumerConfig(
            durable_name="trap",
            deliver_subject="db.tasks.create",
            deliver_group="fleetbus",
            ack_policy=AckPolicy.EXPLICIT,
        )
        await js.add_consumer("TRAP", config)
        await js.publish("trap", b'{"name": "x"}')
        await eventually(lambda: service.replies.refused["db.tasks.create"] == 1)
        assert (await bus.call(ListTasks())).items == []
        info = await js.consumer_info("TRAP", "trap")
        assert info.num_ack_pending == 1
        await js.delete_consumer("TRAP", "trap")

    async def test_behind_the_import_of_an_account_they_are_answered(
        self, data_dir: Path, settings: Settings
    ) -> None:
        async with configured(data_dir, User("handlers")) as server:
            server.importers = [User("caller")]
            await server.reload()
            at = {"nats_url": server.url_of("handlers")}
            service = Service(settings.model_copy(update=at))
            await service.start()
            try:
                async with connect(server.url_of("caller")) as bus:
                    assert (await bus.call(ListTasks())).items == []
            finally:
                assert await service.stop()

    async def test_without_one_a_command_is_executed(self, bus: Bus, raw: RawSession) -> None:
        raw.send(b"db.tasks.create", b'{"name": "unheard"}')
        await raw.settled()

        async def done() -> bool:
            return bool((await bus.call(ListTasks())).items)

        await eventually(done)

    async def test_prefixes_of_the_operator_are_answered(
        self, settings: Settings, nats_url: str
    ) -> None:
        service = Service(settings.model_copy(update={"reply_prefixes": "mine"}))
        await service.start()
        try:
            async with raw_session(nats_url) as raw:
                raw.subscribe(b"mine.1")
                raw.send(b"db.meta.operations", b"", reply=b"mine.1")
                assert json.loads((await raw.arrival()).body)["items"]
        finally:
            assert await service.stop()

    async def test_discovery_tells_how_many(self, bus: Bus, raw: RawSession) -> None:
        raw.send(b"db.tasks.list", b"", reply=b"back")
        raw.send(b"$SRV.PING", b"", reply=b"back")
        await raw.settled()
        answer = json.loads((await bus.nats.request("$SRV.STATS.planning")).data)
        [endpoint] = [e for e in answer["endpoints"] if e["subject"] == "db.tasks.list"]
        assert endpoint["data"]["unanswerable"] == 1
        meta = json.loads((await bus.nats.request("$SRV.STATS.meta", timeout=5)).data)
        [told] = [e for e in meta["endpoints"] if e["subject"] == "db.meta.operations"]
        assert told["data"]["process"]["unanswerable"] == 2


class TestForgedAnnouncements:
    async def test_waiting_is_not_answered_by_them(self, service: Service, raw: RawSession) -> None:
        """The relay is away; somebody says in its place that all is in the stream."""
        forged = json.dumps({"cursor": 10**15, "holes": []}).encode()
        raw.subscribe(b"_INBOX.me")
        raw.send(b"_fleetbus.published", forged)
        raw.send(b"db.events.wait", b'{"position": 5, "timeout_ms": 600}', reply=b"_INBOX.me")
        waiting = asyncio.create_task(raw.arrival())
        async with raw_session(service.settings.nats_url) as forger:
            while not waiting.done():
                forger.send(b"_fleetbus.published", forged)
                await forger.settled()
        assert json.loads(waiting.result().body) == {"position": 5, "published": False}

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"[]",
            b"null",
            b'{"cursor": 1e999, "holes": []}',
            b'{"cursor": "x", "holes": []}',
            b'{"cursor": 1, "holes": [[1]]}',
            b'{"cursor": 1, "holes": 7}',
            b"[" * 10_000,
            b"\xff",
        ],
    )
    async def test_what_cannot_be_read_changes_nothing(
        self, bus: Bus, raw: RawSession, body: bytes
    ) -> None:
        raw.send(b"_fleetbus.published", body)
        await raw.settled()
        await bus.settled(await bus.request(CreateTask(name="one")))


class TestLogs:
    async def test_refusals_that_nobody_hears_are_a_few_lines(
        self, service: Service, raw: RawSession, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING):
            for _ in range(2000):
                raw.send(b"db.tasks.get", b'{"no": "such field"}')
                raw.send(b"db.tasks.list", b"", reply=b"back")
            await raw.settled()
            stats = service.dispatcher.stats.operations
            await eventually(lambda: stats["db.tasks.list"].unanswerable == 2000)
            await eventually(lambda: stats["db.tasks.get"].requests == 2000)
        assert len(caplog.records) <= 20

    async def test_a_bug_that_comes_again_and_again_has_an_id_that_is_in_the_log(
        self, caplog: pytest.LogCaptureFixture, registry: Registry
    ) -> None:
        bound = registry.operations["db.tasks.list"]
        ids = []
        for _ in range(500):
            refusal = refusal_for(ZeroDivisionError(), bound)
            assert isinstance(refusal, InternalError)
            ids.append(refusal.error_id)
        assert len(caplog.records) == LINES
        assert all(error_id in caplog.text for error_id in ids)
