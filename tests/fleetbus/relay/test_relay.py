"""The relay against a real PostgreSQL and a real NATS server."""

import asyncio
import json
from collections import Counter
from itertools import groupby

from sqlalchemy.ext.asyncio import create_async_engine

from bus.storage.database import driver_url
from bus.storage.own import outbox as _outbox
from fleetbus.server.relay.events import messages as messages_of
from fleetbus.server.relay.leader import MANY_HOLES
from fleetbus.server.relay.publisher import FencedPublisher
from fleetbus.server.relay.relay import WAKE_SUBJECT, RelaySettings
from fleetbus.server.relay.stream import StreamSettings, ensure_stream
from tests.fleetbus.relay.running import (
    QUICK,
    Session,
    client_of,
    entities,
    eventually,
    holes,
    is_active,
    messages,
    no_holes,
    record,
    record_many,
    running_relay,
    session_of,
)


class TestEvents:
    async def test_subject_headers_and_body_are_the_protocol(
        self, database_url: str, nats_url: str
    ) -> None:
        async with session_of(database_url) as session, client_of(nats_url) as client:
            await session.execute("""
                INSERT INTO bus.outbox
                    (event_id, type, entity_id, data, cause, traceparent, recorded_at)
                VALUES ('0199c0de-0000-7000-8000-000000000001', 'task.completed', 'a.b*',
                        '{"b": 1,  "a": "é"}', 'key-1', '00-aa-bb-01', '2026-01-02 03:04:05+01')
            """)
            async with running_relay(database_url, client, QUICK):
                [event] = await messages(client, 1)

        assert event.subject == "events.task.completed.a%2Eb%2A"
        assert event.data.decode() == '{"b": 1,  "a": "é"}'
        assert {
            name: value for name, value in (event.headers or {}).items()
            if not name.startswith("Nats-Expected")
        } == {
            "Nats-Msg-Id": "0199c0de-0000-7000-8000-000000000001",
            "ce-id": "0199c0de-0000-7000-8000-000000000001",
            "ce-specversion": "1.0",
            "ce-type": "task.completed",
            "ce-source": "fleetbus",
            "ce-subject": "a.b*",
            "ce-time": "2026-01-02T02:04:05.000000Z",
            "ce-datacontenttype": "application/json",
            "Fleet-Position": "1",
            "Fleet-Cause": "key-1",
            "traceparent": "00-aa-bb-01",
        }  # fmt: skip

    async def test_a_wake_up_is_enough(self, database_url: str, nats_url: str) -> None:
        seldom = RelaySettings(poll_interval=60)
        async with (
            session_of(database_url) as session,
            client_of(nats_url) as client,
            running_relay(database_url, client, seldom) as relay,
        ):
            await eventually(lambda: is_active(relay))
            await asyncio.sleep(0.1)
            await record(session, "woken-here")
            relay.wake()
            assert await entities(client, 1) == ["woken-here"]

            await record(session, "woken-over-the-bus")
            await client.publish(WAKE_SUBJECT)
            assert (await entities(client, 2))[1] == "woken-over-the-bus"


class TestTransactions:
    async def test_an_open_transaction_delays_only_its_own_events(
        self, database_url: str, nats_url: str
    ) -> None:
        async with (
            session_of(database_url) as session,
            session_of(database_url) as other,
            client_of(nats_url) as client,
            running_relay(database_url, client, QUICK),
        ):
            await record(session, "before")
            slow = other.transaction()
            await slow.start()
            await record(other, "slow-1", "slow-2")
            await record(session, "after")
            assert await entities(client, 2) == ["before", "after"]
            await asyncio.sleep(0.3)
            assert await holes(session) == "[[2, 3]]"

            await slow.commit()
            assert (await entities(client, 4))[2:] == ["slow-1", "slow-2"]
            await no_holes(session)

    async def test_a_rollback_leaves_no_hole(self, database_url: str, nats_url: str) -> None:
        async with (
            session_of(database_url) as session,
            client_of(nats_url) as client,
            running_relay(database_url, client, QUICK),
        ):
            undone = session.transaction()
            await undone.start()
            await record(session, "never")
            await undone.rollback()
            await record(session, "told")

            assert await entities(client, 1) == ["told"]
            await no_holes(session)

    async def test_a_hole_outlives_the_snapshot_xmax_that_its_owner_is_above(
        self, database_url: str, nats_url: str
    ) -> None:
        """The lower position belongs to the higher xid, so xmin equals xmax while it runs."""
        async with (
            session_of(database_url) as low_xid,
            session_of(database_url) as high_xid,
            client_of(nats_url) as client,
            running_relay(database_url, client, QUICK) as relay,
        ):
            await eventually(lambda: is_active(relay))
            first, second = low_xid.transaction(), high_xid.transaction()
            await first.start()
            await low_xid.execute("SELECT pg_current_xact_id()")
            await second.start()
            await record(high_xid, "high xid, low position")
            await record(low_xid, "low xid, high position")
            await first.commit()
            assert await entities(client, 1) == ["low xid, high position"]

            await asyncio.sleep(0.5)
            await second.commit()
            assert (await entities(client, 2))[1] == "high xid, low position"

    async def test_a_forgotten_reader_holds_back_nothing(
        self, database_url: str, nats_url: str
    ) -> None:
        async with (
            session_of(database_url) as session,
            session_of(database_url) as forgotten,
            client_of(nats_url) as client,
            running_relay(database_url, client, QUICK),
        ):
            await forgotten.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            await forgotten.fetch("SELECT * FROM bus.outbox")
            await session.execute("BEGIN")
            await record(session, "never")
            await session.execute("ROLLBACK")
            await record(session, "told")

            assert await entities(client, 1) == ["told"]
            await no_holes(session)

    async def test_a_forgotten_writer_holds_back_only_the_giving_up(
        self, database_url: str, nats_url: str
    ) -> None:
        async with (
            session_of(database_url) as session,
            session_of(database_url) as forgotten,
            client_of(nats_url) as client,
            running_relay(database_url, client, QUICK),
        ):
            await forgotten.execute("BEGIN")
            await forgotten.execute("SELECT pg_current_xact_id()")
            for number in range(3):
                await session.execute("BEGIN")
                await record(session, "never")
                await session.execute("ROLLBACK")
                await record(session, f"told-{number}")
            assert await entities(client, 3) == ["told-0", "told-1", "told-2"]
            await asyncio.sleep(0.5)
            assert await holes(session) == "[[1, 1], [3, 3], [5, 5]]"

            await forgotten.execute("ROLLBACK")
            await no_holes(session)

    async def test_events_of_a_transaction_stay_together(
        self, database_url: str, nats_url: str
    ) -> None:
        small_pages = RelaySettings(poll_interval=0.1, page=2)
        async with (
            session_of(database_url) as session,
            session_of(database_url) as other,
            client_of(nats_url) as client,
        ):
            await other.execute("BEGIN")
            await session.execute("BEGIN")
            for number in range(4):
                await record(session, f"a{number}")
                await record(other, f"b{number}")
            await session.execute("COMMIT")
            await other.execute("COMMIT")
            async with running_relay(database_url, client, small_pages):
                assert await entities(client, 8) == [
                    f"{name}{number}" for name in "ab" for number in range(4)
                ]

    async def test_more_events_than_a_batch_takes(self, database_url: str, nats_url: str) -> None:
        async with session_of(database_url) as session, client_of(nats_url) as client:
            await record_many(session, 2500)
            async with running_relay(database_url, client, QUICK):
                assert await entities(client, 2500) == [f"e{n}" for n in range(1, 2501)]

    async def test_holes_do_not_pile_up_behind_a_forgotten_writer(
        self, database_url: str, nats_url: str
    ) -> None:
        """With many of them the relay asks who has written to the outbox at all."""
        async with (
            session_of(database_url) as session,
            session_of(database_url) as forgotten,
            session_of(database_url) as slow,
            client_of(nats_url) as client,
            running_relay(database_url, client, QUICK),
        ):
            await forgotten.execute("BEGIN")
            await forgotten.execute("SELECT pg_current_xact_id()")
            await roll_back(session, 2 * MANY_HOLES)
            await eventually(lambda: has_few_holes(session))

            await slow.execute("BEGIN")
            await record(slow, "slow")
            await roll_back(session, 2 * MANY_HOLES)
            await asyncio.sleep(0.5)
            assert not await has_few_holes(session)
            await slow.execute("COMMIT")
            await eventually(lambda: has_few_holes(session))

            assert (await entities(client, 4 * MANY_HOLES + 1))[-1] == "slow"

    async def test_a_transaction_larger_than_a_batch_says_which_part_an_event_is_of(
        self, database_url: str, nats_url: str
    ) -> None:
        """Also if it is larger than what is read at once, and if its first part is stored."""
        small_pages = RelaySettings(poll_interval=0.1, page=10, lookahead=20)
        async with session_of(database_url) as session, client_of(nats_url) as client:
            await record(session, "small")
            await record_many(session, 2500)
            await record(session, "small")
            async with create_async_engine(driver_url(database_url)).connect() as conn:
                page = await _outbox.read_outbox(conn, [(2, 2501)], 2500, 0)
            info = await ensure_stream(client.jetstream(), StreamSettings())
            publisher = FencedPublisher(client, atomic=bool(info.config.allow_atomic))
            await publisher.publish([messages_of(page.rows, "fleetbus")[:1000]], 0)
            async with running_relay(database_url, client, small_pages):
                found = await messages(client, 2502)

        parts = [(message.headers or {}).get("Fleet-Part") for message in found]
        assert Counter(parts) == {"1/3": 1000, "2/3": 1000, "3/3": 500, None: 2}
        assert [part for part, _ in groupby(parts)] == ["1/3", None, "2/3", "3/3", None]

    async def test_a_jump_of_the_sequence(self, database_url: str, nats_url: str) -> None:
        async with (
            session_of(database_url) as session,
            client_of(nats_url) as client,
            running_relay(database_url, client, QUICK),
        ):
            await record(session, "before")
            await session.execute("SELECT setval('bus.outbox_position', 1000000000000)")
            await record(session, "after")

            assert await entities(client, 2) == ["before", "after"]
            await no_holes(session)


async def roll_back(session: Session, times: int) -> None:
    """So many holes, each of its own."""
    for number in range(times):
        await session.execute("BEGIN")
        await record(session, "never")
        await session.execute("ROLLBACK")
        await record(session, f"told-{number}")


async def has_few_holes(session: Session) -> bool:
    return len(json.loads(await holes(session))) < MANY_HOLES
