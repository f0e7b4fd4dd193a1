"""What others put into the stream is removed, and the relay goes on at once."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from uuid import uuid4

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage.own import foreign_messages as _foreign
from bus.storage.own.reconciliation import last_verdict
from fleetbus.server.relay.events import message
from fleetbus.server.relay.relay import RECONCILE_SUBJECT, Relay
from tests.fleetbus.relay.hostile import (
    BLOCKS,
    Stranger,
    block,
    held,
    own_headers,
    stranger,
    tells,
    told,
)
from tests.fleetbus.relay.reconciling import answers, has_checked, published, verdict
from tests.fleetbus.relay.running import (
    QUICK,
    client_of,
    eventually,
    is_active,
    messages,
    record,
    running_relay,
    saved,
    session_of,
    stream_reaches,
)

WATCHFUL = replace(QUICK, watch_interval=0.1)

Forgery = Callable[[Msg], tuple[str, dict[str, str], bytes]]


def forged(**changes: str) -> Forgery:
    return lambda m: (m.subject, own_headers(m) | changes, m.data)


FORGERIES: dict[str, Forgery] = {
    "a copy": lambda m: (m.subject, own_headers(m), m.data),
    "a copy with its fences": lambda m: (
        m.subject,
        {k: v for k, v in (m.headers or {}).items() if not k.startswith("Nats-")},
        m.data,
    ),
    "another body": lambda m: (m.subject, own_headers(m), b'{"id": "z"}'),
    "another subject": lambda m: ("events.task.deleted.z", own_headers(m), m.data),
    "a position to come": lambda m: (m.subject, own_headers(m) | {"Fleet-Position": "4"}, m.data),
    "a position far away": lambda m: (
        m.subject,
        own_headers(m) | {"Fleet-Position": "123456789012345678"},
        m.data,
    ),
    "an id of its own": lambda m: (m.subject, own_headers(m) | {"ce-id": str(uuid4())}, m.data),
    "a time that is none": lambda m: (m.subject, own_headers(m) | {"ce-time": "now"}, m.data),
    "a time without a zone": lambda m: (
        m.subject,
        own_headers(m) | {"ce-time": "2020-01-01T00:00:00", "Fleet-Position": "9"},
        m.data,
    ),
    "shortened": lambda m: (m.subject, own_headers(m) | {"Fleet-Shortened": "true"}, b"{}"),
    "a marker": lambda m: (m.subject, {"Nats-Marker-Reason": "MaxAge"}, b""),
}


def unique(headers: dict[str, str]) -> dict[str, str]:
    """The server takes it although it has seen the event's id a moment ago."""
    return headers | {"Nats-Msg-Id": str(uuid4())}


async def was_removed(relay: Relay, count: int) -> bool:
    return relay.metrics.foreign == count


class TestWhileTheRelayRuns:
    @pytest.mark.parametrize("name", FORGERIES)
    async def test_it_is_removed_and_events_go_on(
        self, database_url: str, nats_url: str, name: str
    ) -> None:
        async with (
            client_of(nats_url) as client,
            session_of(database_url) as session,
            running_relay(database_url, client, QUICK) as relay,
        ):
            await record(session, "a", "b", "c")
            found = await messages(client, 3)
            subject, headers, body = FORGERIES[name](found[1])
            await eventually(partial(_is_taken, client, subject, headers, body))
            await record(session, "d")
            await eventually(partial(tells, client, ["a", "b", "c", "d"]))
            assert (relay.metrics.takeovers, relay.metrics.errors) == (1, 0)
            await eventually(partial(was_removed, relay, 1))

    async def test_bytes_that_are_no_headers(
        self, database_url: str, nats_url: str, db: AsyncConnection
    ) -> None:
        async with (
            client_of(nats_url) as client,
            session_of(database_url) as session,
            stranger(nats_url) as somebody,
            running_relay(database_url, client, QUICK) as relay,
        ):
            for number, bad in enumerate(BLOCKS):
                await record(session, f"e{number}")
                await stream_reaches(client, number + 1)
                await somebody.publish("events.x", bad)
                await somebody.arrived()
            await record(session, "last")
            names = [f"e{number}" for number in range(len(BLOCKS))]
            await eventually(partial(tells, client, [*names, "last"]))
            assert relay.metrics.takeovers == 1

            async def are_counted() -> bool:
                removed = await _foreign.removed(db)
                return removed is not None and removed[0::2] == (len(BLOCKS), "events.x")

            await eventually(are_counted)

    async def test_it_is_found_without_anything_to_publish(
        self, database_url: str, nats_url: str
    ) -> None:
        async with (
            client_of(nats_url) as client,
            session_of(database_url) as session,
            running_relay(database_url, client, WATCHFUL) as relay,
        ):
            await record(session, "a")
            await stream_reaches(client, 1)
            await client.jetstream().publish("events.somebody.else", b"")
            await eventually(partial(was_removed, relay, 1))
            await asyncio.sleep(0.3)
            assert (relay.metrics.takeovers, relay.metrics.errors) == (1, 0)
            assert told(await held(client)) == ["a"]

    async def test_the_id_of_an_event_that_is_still_to_come(
        self, database_url: str, nats_url: str, db: AsyncConnection
    ) -> None:
        """The server takes ours for a duplicate of what it does not hold any more."""
        async with (
            client_of(nats_url) as client,
            session_of(database_url) as session,
            running_relay(database_url, client, QUICK) as relay,
        ):
            await record(session, "a")
            await stream_reaches(client, 1)
            stolen = uuid4()
            await client.jetstream().publish(
                "events.task.completed.c", b"{}", headers={"Nats-Msg-Id": str(stolen)}
            )
            async with session.transaction():
                await record(session, "b")
                await session.execute(
                    "INSERT INTO bus.outbox (event_id, type, entity_id, data) "
                    "VALUES ($1, 'task.completed', 'c', '{}')",
                    stolen,
                )
                await record(session, "d")
            await eventually(partial(tells, client, ["a", "b", "c", "d"]))
            assert relay.metrics.errors == 0
            found = await last_verdict(db)
            assert found is None or found.missing == 0
            info = await client.jetstream().stream_info("EVENTS")
            assert info.config.duplicate_window == 120

    async def test_what_was_found_whole_stays_so(
        self, database_url: str, nats_url: str, db: AsyncConnection
    ) -> None:
        """What was removed is no loss, and nothing is compared again because of it."""
        async with client_of(nats_url) as client, session_of(database_url) as session:
            await published(database_url, client, 40)
            async with running_relay(database_url, client, QUICK) as relay:
                await eventually(partial(has_checked, db, 40))
                for _ in range(3):
                    await client.jetstream().publish("events.x", b"")
                await record(session, "a", "b")
                names = [f"e{number}" for number in range(1, 41)]
                await eventually(partial(tells, client, [*names, "a", "b"]))
                await eventually(partial(was_removed, relay, 3))
            moment = await db.scalar(text("SELECT clock_timestamp()"))
            async with running_relay(database_url, client, WATCHFUL) as relay:
                # The two that are new, or none if the relay before this one has come to them.
                await eventually(partial(has_checked, db, 2, since=moment))
                await asyncio.sleep(0.3)
                assert (relay.metrics.takeovers, relay.metrics.errors) == (1, 0)

    async def test_a_stream_that_keeps_them_does_not_stop_events(
        self, database_url: str, nats_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with client_of(nats_url) as client, session_of(database_url) as session:
            await client.jetstream().add_stream(
                name="EVENTS", subjects=["events.>"], deny_delete=True, allow_atomic=True
            )
            async with running_relay(database_url, client, WATCHFUL) as relay:
                await client.jetstream().publish("events.x", b"")
                await record(session, "a", "b")
                await stream_reaches(client, 3)
                await eventually(lambda: is_active(relay))
                await eventually(partial(_said, caplog, "foreign messages cannot be removed"))
                assert relay.metrics.errors == 0
                assert relay.metrics.foreign == 0


async def _is_taken(client: Client, subject: str, headers: dict[str, str], body: bytes) -> bool:
    """Once the server has forgotten the id of the event that is copied, as it is asked to."""
    js = client.jetstream()
    if (ack := await js.publish(subject, body, headers=headers)).duplicate:
        config = (await js.stream_info("EVENTS")).config
        window = 0.2 if config.duplicate_window == 0.1 else 0.1
        await js.update_stream(config.evolve(duplicate_window=window))
    return not ack.duplicate


async def _said(caplog: pytest.LogCaptureFixture, words: str) -> bool:
    return words in caplog.text


class TestWhileNoRelayRuns:
    @pytest.mark.parametrize("name", FORGERIES)
    async def test_the_next_one_removes_it_first(
        self, database_url: str, nats_url: str, name: str
    ) -> None:
        async with client_of(nats_url) as client, session_of(database_url) as session:
            async with running_relay(database_url, client, QUICK):
                await record(session, "a", "b", "c")
                found = await messages(client, 3)
                await eventually(partial(saved, session, 3))
            subject, headers, body = FORGERIES[name](found[1])
            await eventually(partial(_is_taken, client, subject, headers, body))
            await record(session, "d")
            async with running_relay(database_url, client, QUICK) as relay:
                await eventually(partial(tells, client, ["a", "b", "c", "d"]))
                assert relay.metrics.errors == 0

    async def test_an_event_that_is_still_to_come_with_another_body(
        self, database_url: str, nats_url: str, db: AsyncConnection
    ) -> None:
        async with client_of(nats_url) as client, session_of(database_url) as session:
            await published(database_url, client, 1)
            await record(session, "a", "b")
            own = (await _foreign.rows_at(db, [2], bodies=True))[2]
            told = message(own, "fleetbus")
            await client.jetstream().publish(told.subject, b'{"id": "z"}', headers=told.headers)
            async with running_relay(database_url, client, QUICK):
                await eventually(partial(tells, client, ["e1", "a", "b"]))
                bodies = [m.body for m in await held(client)][1:]
                assert bodies == [b'{"id": "a"}', b'{"id": "b"}']

    async def test_bytes_that_are_no_headers(self, database_url: str, nats_url: str) -> None:
        async with client_of(nats_url) as client, session_of(database_url) as session:
            await published(database_url, client, 5)
            async with stranger(nats_url) as somebody:
                for bad in BLOCKS:
                    await somebody.publish("events.x", bad)
                await somebody.arrived()
            await record(session, "d")
            async with running_relay(database_url, client, QUICK):
                names = [f"e{number}" for number in range(1, 6)]
                await eventually(partial(tells, client, [*names, "d"]))

    async def test_copies_that_lie_before_the_relays_place_are_found_when_asked(
        self, database_url: str, nats_url: str, db: AsyncConnection
    ) -> None:
        async with client_of(nats_url) as client, session_of(database_url) as session:
            found = await published(database_url, client, 5)
            for message in found[:2]:
                await client.jetstream().publish(
                    message.subject, message.data, headers=unique(own_headers(message))
                )
            await client.jetstream().publish("events.x", b"")
            await session.execute("UPDATE bus.relay_state SET stream_sequence = 8")
            async with running_relay(database_url, client, QUICK):
                await eventually(partial(answers, client))
                await eventually(partial(tells, client, [f"e{number}" for number in range(1, 6)]))
                await verdict(db, "ok")


class TestFlood:
    async def test_events_go_on_while_a_thousand_messages_a_second_come(
        self, database_url: str, nats_url: str
    ) -> None:
        latest = 0.0
        async with (
            client_of(nats_url) as client,
            session_of(database_url) as session,
            stranger(nats_url) as somebody,
            running_relay(database_url, client, QUICK) as relay,
        ):
            await eventually(lambda: is_active(relay))
            flood = asyncio.create_task(_flood(somebody, seconds=3.0))
            number = 0
            while not flood.done():
                number += 1
                before = time.monotonic()
                await record(session, f"e{number}")
                relay.wake()
                await eventually(partial(_holds, client, number))
                latest = max(latest, time.monotonic() - before)
            await flood
            await record(session, "last")
            names = [f"e{n}" for n in range(1, number + 1)]
            await eventually(partial(tells, client, [*names, "last"]), within=30)
            assert relay.metrics.takeovers == 1
            assert number > 3


async def _flood(somebody: Stranger, *, seconds: float) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        for _ in range(10):
            await somebody.publish("events.flood", block({"A": "b"}), b"x" * 100)
        await asyncio.sleep(0.01)
    await somebody.arrived()


async def _holds(client: Client, number: int) -> bool:
    js = client.jetstream()
    try:
        await js.get_last_msg("EVENTS", f"events.task.completed.e{number}")
    except Exception:  # noqa: BLE001  not there yet
        return False
    return True


class TestReplySubjects:
    async def test_no_answer_goes_elsewhere_than_into_an_inbox(
        self, database_url: str, nats_url: str
    ) -> None:
        async with (
            client_of(nats_url) as client,
            session_of(database_url) as session,
            running_relay(database_url, client, QUICK) as relay,
        ):
            await record(session, "a")
            await stream_reaches(client, 1)
            for subject in ("$JS.API.STREAM.DELETE.EVENTS", "events.task.completed.x", ""):
                await client.publish(RECONCILE_SUBJECT, b"\xff", reply=subject)
            await client.request(RECONCILE_SUBJECT, b"not JSON", timeout=5)
            await record(session, "b")
            await eventually(partial(tells, client, ["a", "b"]))
            assert relay.metrics.errors == 0
