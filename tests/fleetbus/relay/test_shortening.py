"""An event that does not fit one message is told in a short form, and the others go on."""

import json
import string
from functools import partial
from string import Template
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.js.api import DiscardPolicy
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage.own.short_forms import is_short_form, shortened
from fleetbus.embedded import nats
from fleetbus.embedded.nats import EmbeddedNats
from tests.fleetbus.relay.hostile import held, tells
from tests.fleetbus.relay.reconciling import answers, is_connected, verdict
from tests.fleetbus.relay.running import (
    INSERT,
    QUICK,
    Session,
    client_of,
    eventually,
    is_active,
    messages,
    record,
    running_relay,
    saved,
    session_of,
)

TEXTS = st.text(st.sampled_from('aé\x1b"\\😀\x00\u2028'), max_size=200)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(string.ascii_lowercase, max_size=6), inner, max_size=5)
    ),
    max_leaves=20,
)


class TestRule:
    @settings(max_examples=200, deadline=None)
    @given(
        st.dictionaries(st.sampled_from(["a", "b", "id", "version", "status"]), VALUES, max_size=5),
        VALUES,
        st.integers(2, 800),
    )
    def test_it_fits_it_is_an_object_and_it_is_of_the_event(
        self, entity: dict[str, Any], beside: Any, room: int
    ) -> None:
        body = json.dumps({"task": entity, "beside": beside})
        short = shortened(body, "task", room)
        assert len(short) <= room
        assert isinstance(json.loads(short), dict)
        assert is_short_form(short, body)

    @given(
        st.integers(400, 5000), st.integers(1, 20_000), st.sampled_from(["x", "\x1b", "é", "😀"])
    )
    @settings(max_examples=50, deadline=None)
    def test_the_entity_can_be_told_by_it(self, room: int, length: int, letter: str) -> None:
        entity = {
            "id": "0199c0de-0000-7000-8000-000000000001",
            "version": 7,
            "name": "a task",
            "status": "completed",
            "progress": {"screen": letter * length, "lines": ["y"] * length},
        }
        short = json.loads(shortened(json.dumps({"task": entity, "previous": "p"}), "task", room))
        kept = {name: entity[name] for name in ("id", "version", "name", "status")}
        assert short["previous"] == "p"
        assert kept.items() <= short["task"].items()

    @pytest.mark.parametrize(
        "body",
        [
            "[1]",
            '"' + "x" * 99 + '"',
            '{"a": 1e999}',
            "[" * 9999,
            '{"a":' * 5000 + "1" + "}" * 5000,
        ],
    )
    def test_what_is_no_event_is_an_empty_object(self, body: str) -> None:
        assert shortened(body, "task", 50) == b"{}"

    def test_another_body_is_no_short_form(self) -> None:
        body = json.dumps({"task": {"id": "a", "text": "abc" * 100, "list": [1, 2]}})
        for other in ('{"task": {"id": "b"}}', '{"x": 1}', '{"task": {"text": "xyz…"}}', "[]",
                      '{"task": {"list": [1]}}', "no", '{"task": {"id": true}}'):  # fmt: skip
            assert not is_short_form(other.encode(), body)


async def record_large(session: Session, entity: str, data: Any) -> None:
    await session.execute(INSERT, uuid4(), "agent.crashed", entity, json.dumps(data))


def screen(entity: str, letter: str, count: int) -> dict[str, Any]:
    agent = {
        "id": entity,
        "version": 3,
        "status": "crashed",
        "progress": {"screen": letter * count},
    }
    return {"agent": agent, "previous_status": "running"}


async def smaller(server: EmbeddedNats, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """The server, started again, takes messages of this size."""
    config = f"max_payload: {size}\n" + nats.CONFIG.template
    monkeypatch.setattr(nats, "CONFIG", Template(config))
    await server.stop()
    await server.start()


class TestRelay:
    async def test_one_that_is_too_large_is_told_shortened_and_the_others_go_on(
        self, database_url: str, nats_url: str, db: AsyncConnection
    ) -> None:
        async with (
            client_of(nats_url) as client,
            session_of(database_url) as session,
            running_relay(database_url, client, QUICK) as relay,
        ):
            async with session.transaction():
                await record(session, "a")
                await record_large(session, "big", screen("big", "\x1b", 200_000))
                await record(session, "b")
            await record(session, "c")
            found = await messages(client, 4)
            assert relay.metrics.errors == 0
            assert relay.metrics.shortened == 1
            await eventually(partial(answers, client))
            assert (await verdict(db, "ok")).missing == 0

        assert [(m.headers or {})["ce-subject"] for m in found] == ["a", "big", "b", "c"]
        assert [(m.headers or {}).get("Fleet-Shortened") for m in found] == [
            None,
            "true",
            None,
            None,
        ]
        assert [(m.headers or {})["Fleet-Position"] for m in found] == ["1", "2", "3", "4"]
        batches = [(m.headers or {}).get("Nats-Batch-Id") for m in found]
        assert batches[0] == batches[1] == batches[2]
        body = json.loads(found[1].data)
        assert body["previous_status"] == "running"
        assert body["agent"] == {
            "id": "big",
            "version": 3,
            "status": "crashed",
            "progress": {"screen": "\x1b" * 4096 + "…"},
        }

    async def test_a_server_that_takes_less_than_before(
        self,
        database_url: str,
        own_nats: EmbeddedNats,
        db: AsyncConnection,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Those that are told already stay the same events; those to come are shortened."""
        async with client_of(own_nats.url) as client, session_of(database_url) as session:
            async with running_relay(database_url, client, QUICK):
                await record_large(session, "whole", screen("whole", "x", 500_000))
                await messages(client, 1)
                await eventually(partial(saved, session, 1))
                await smaller(own_nats, monkeypatch, 65_536)
                await eventually(partial(is_connected, client))
                await record_large(session, "short", screen("short", "x", 500_000))
                await record(session, "last")
                await eventually(partial(tells, client, ["whole", "short", "last"]))
                await eventually(partial(answers, client))
                assert (await verdict(db, "ok")).missing == 0
            await client.jetstream().delete_stream("EVENTS")
            async with running_relay(database_url, client, QUICK):
                await eventually(partial(tells, client, ["whole", "short", "last"]))
                assert (await verdict(db, "repaired")).repaired == 3
                await eventually(partial(answers, client))
                assert (await verdict(db, "ok")).missing == 0
            marks = [(m.headers or {}).get("Fleet-Shortened") for m in await held(client)]
            assert marks == ["true", "true", None]

    async def test_a_stream_that_takes_less_than_the_server(
        self, database_url: str, nats_url: str
    ) -> None:
        async with client_of(nats_url) as client, session_of(database_url) as session:
            await client.jetstream().add_stream(
                name="EVENTS", subjects=["events.>"], max_msg_size=2000, allow_atomic=True
            )
            await record_large(session, "big", screen("big", "x", 500_000))
            await record(session, "b")
            async with running_relay(database_url, client, QUICK):
                await eventually(partial(tells, client, ["big", "b"]))

    @pytest.mark.parametrize("room", [700, 900])
    async def test_where_hardly_anything_fits(
        self, database_url: str, nats_url: str, room: int
    ) -> None:
        async with client_of(nats_url) as client, session_of(database_url) as session:
            await client.jetstream().add_stream(
                name="EVENTS", subjects=["events.>"], max_msg_size=room, allow_atomic=True
            )
            await record_large(session, "big", {"agent": {"id": "big", "list": ["x" * 60] * 99}})
            await session.execute(
                "UPDATE bus.outbox SET cause = repeat('c', 200), traceparent = repeat('t', 55)"
            )
            await record(session, "b")
            async with running_relay(database_url, client, QUICK) as relay:
                await eventually(partial(tells, client, ["big", "b"]))
                assert relay.metrics.errors == 0
            first = (await held(client))[0]
            assert isinstance(json.loads(first.body or b""), dict)
            assert (first.headers or {})["Fleet-Shortened"] == "true"

    async def test_no_room_for_the_headers_is_said(self, database_url: str, nats_url: str) -> None:
        async with client_of(nats_url) as client, session_of(database_url) as session:
            await client.jetstream().add_stream(
                name="EVENTS", subjects=["events.>"], max_msg_size=100, allow_atomic=True
            )
            await record(session, "a")
            async with running_relay(database_url, client, QUICK) as relay:
                await eventually(lambda: _says(relay, "raise max_payload"))

    async def test_what_no_server_takes_as_a_subject_is_made_one_it_takes(
        self, database_url: str, nats_url: str
    ) -> None:
        kinds = ["task.a b", "task..*", "task.>", "no dot", "\x01.é"]
        ids = ["", "x" * 9000, "é" * 3000, ".", "a\r\nb", "\x7f"]
        async with client_of(nats_url) as client, session_of(database_url) as session:
            rows = [(uuid4(), kind, "e", "{}") for kind in kinds]
            rows += [(uuid4(), "task.completed", entity, "{}") for entity in ids]
            await session.executemany(INSERT, rows)
            await session.execute("UPDATE bus.outbox SET cause = E'a\\r\\nX: \\x01 ' || position")
            async with running_relay(database_url, client, QUICK) as relay:
                await messages(client, len(rows))
                assert relay.metrics.errors == 0
                await eventually(partial(answers, client))
            async with running_relay(database_url, client, QUICK):
                assert len(await messages(client, len(rows))) == len(rows)

    async def test_much_at_once_is_read_and_sent_a_part_at_a_time(
        self, database_url: str, nats_url: str
    ) -> None:
        """One transaction of more than a batch may hold, and many of one event each."""
        async with client_of(nats_url) as client, session_of(database_url) as session:
            async with session.transaction():
                await session.execute(LARGE, 45, 900_000)
            for _ in range(20):
                await session.execute(LARGE, 1, 900_000)
            async with running_relay(database_url, client, QUICK) as relay:
                await eventually(partial(_holds, client, 65), within=60)
                assert relay.metrics.errors == 0
            found = await held(client)
        parts = [(m.headers or {}).get("Fleet-Part") for m in found]
        first = parts.count("1/2")
        assert parts == ["1/2"] * first + ["2/2"] * (45 - first) + [None] * 20
        assert 30 < first < 40
        batches = {(m.headers or {})["Nats-Batch-Id"] for m in found[:first]}
        assert len(batches) == 1


LARGE = """
    INSERT INTO bus.outbox (event_id, type, entity_id, data)
    SELECT gen_random_uuid(), 'task.completed', 'e' || n,
           json_build_object('text', repeat('x', $2))
    FROM generate_series(1, $1) AS n ORDER BY n
"""


async def _holds(client: Client, count: int) -> bool:
    return len(await held(client)) == count


async def _says(relay: Any, words: str) -> bool:
    return words in relay.metrics.trouble


class TestRefusals:
    async def test_a_full_stream_is_said_and_nothing_is_lost(
        self, database_url: str, nats_url: str
    ) -> None:
        async with (
            client_of(nats_url) as client,
            session_of(database_url) as session,
            running_relay(database_url, client, QUICK) as relay,
        ):
            await eventually(lambda: is_active(relay))
            js = client.jetstream()
            config = (await js.stream_info("EVENTS")).config
            await js.update_stream(config.evolve(max_bytes=600, discard=DiscardPolicy.NEW))
            await record(session, "a", "b", "c")
            await eventually(lambda: _says(relay, "raise its limits"))
            await js.update_stream(config)
            await eventually(partial(tells, client, ["a", "b", "c"]))
            await eventually(lambda: _is_well(relay))

    async def test_a_limit_of_the_account(
        self, database_url: str, own_nats: EmbeddedNats, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        small = "jetstream {\n  max_file_store: 200KB"
        monkeypatch.setattr(
            nats, "CONFIG", Template(nats.CONFIG.template.replace("jetstream {", small))
        )
        await own_nats.stop()
        await own_nats.start()
        async with (
            client_of(own_nats.url) as client,
            session_of(database_url) as session,
            running_relay(database_url, client, QUICK) as relay,
        ):
            for _ in range(5):
                await session.execute(LARGE, 1, 400_000)
            await eventually(lambda: _says(relay, "make room on the disk of NATS"))


async def _is_well(relay: Any) -> bool:
    return not relay.metrics.trouble
