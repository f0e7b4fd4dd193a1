"""What the stream lost comes back from the outbox: each event once, as it was."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage.own.reconciliation import last_verdict
from fleetbus.embedded.nats import EmbeddedNats
from fleetbus.server.relay.relay import RECONCILE_SUBJECT
from fleetbus.server.relay.stream import StreamSettings, ensure_stream
from tests.fleetbus.relay.reconciling import (
    asked,
    at_end,
    has_checked,
    headers,
    holds,
    is_connected,
    positions,
    published,
    verdict,
    verdict_is,
)
from tests.fleetbus.relay.running import (
    QUICK,
    client_of,
    eventually,
    messages,
    record,
    record_many,
    running_relay,
    session_of,
    stream_length,
    stream_reaches,
)

WATCHFUL = replace(QUICK, watch_interval=0.1)


class TestLoss:
    async def test_a_deleted_stream_is_rebuilt_in_order(
        self, database_url: str, nats_url: str, db: AsyncConnection
    ) -> None:
        async with client_of(nats_url) as client:
            before = await published(database_url, client, 2500)
            await client.jetstream().delete_stream("EVENTS")

            async with (
                running_relay(database_url, client, QUICK),
                session_of(database_url) as session,
            ):
                await record(session, "new")
                after = await messages(client, 2501)
                found = await last_verdict(db)

        assert headers(after[:2500]) == headers(before)
        assert [m.data for m in after[:2500]] == [m.data for m in before]
        assert (after[-1].headers or {})["ce-subject"] == "new"
        assert found is not None
        assert found[0] == "repaired"
        assert found[2:5] == (2500, 2500, 2500)

    async def test_an_emptied_stream_is_rebuilt_although_the_server_remembers_the_ids(
        self, database_url: str, nats_url: str, db: AsyncConnection
    ) -> None:
        async with client_of(nats_url) as client:
            before = await published(database_url, client, 1200)
            await client.jetstream().purge_stream("EVENTS")

            async with running_relay(database_url, client, QUICK):
                after = await messages(client, 1200)
                assert (await verdict(db, "repaired")).repaired == 1200
            window = (await client.jetstream().stream_info("EVENTS")).config.duplicate_window

        assert headers(after) == headers(before)
        assert window == 120

    async def test_deleted_events_come_back_at_the_end_each_once(
        self, database_url: str, nats_url: str, db: AsyncConnection
    ) -> None:
        lost = [3, 4, 700, 1100]
        async with client_of(nats_url) as client:
            before = await published(database_url, client, 1200)
            for sequence in lost:
                await client.jetstream().delete_msg("EVENTS", sequence)

            async with (
                running_relay(database_url, client, QUICK),
                session_of(database_url) as session,
            ):
                await eventually(partial(verdict_is, db, "repaired"))
                await record(session, "new")
                after = await messages(client, 1201)
            async with running_relay(database_url, client, QUICK):
                await verdict(db, "ok")
            assert await stream_length(client) == 1201

        kept = [position for position in range(1, 1201) if position not in lost]
        assert positions(after) == [*kept, *lost, 1201]
        by_position = sorted(headers(after[:-1]), key=lambda h: int(h["Fleet-Position"]))
        # One that comes alone is no part of anything.
        told = headers(before)
        parts = [h.pop("Fleet-Part", None) for h in told]
        assert [h.pop("Fleet-Part", None) for h in by_position] == [
            None if position in lost else part for position, part in enumerate(parts, 1)
        ]
        assert by_position == told

    async def test_it_is_noticed_while_the_relay_runs(
        self, database_url: str, nats_url: str, db: AsyncConnection
    ) -> None:
        async with (
            client_of(nats_url) as client,
            session_of(database_url) as session,
            running_relay(database_url, client, WATCHFUL),
        ):
            await record_many(session, 50)
            await stream_reaches(client, 50)
            await client.jetstream().purge_stream("EVENTS", keep=10)
            await eventually(partial(verdict_is, db, "repaired"))
            await client.jetstream().delete_stream("EVENTS")
            await eventually(partial(holds, client, 50))
            await record(session, "new")
            found = await messages(client, 51)

        assert positions(found) == list(range(1, 52))

    async def test_a_stream_restored_to_an_earlier_time_is_completed(
        self, database_url: str, nats_url: str, db: AsyncConnection
    ) -> None:
        async with client_of(nats_url) as client:
            before = await published(database_url, client, 300)
            js = client.jetstream()
            await js.delete_stream("EVENTS")
            await ensure_stream(js, StreamSettings())
            for message in before[:120]:
                await js.publish(message.subject, message.data, headers=headers([message])[0])

            async with running_relay(database_url, client, QUICK):
                after = await messages(client, 300)
                found = await verdict(db, "repaired")

        assert headers(after) == headers(before)
        assert (found.checked, found.missing, found.repaired) == (300, 180, 180)

    async def test_a_broker_restored_from_a_backup_is_completed(
        self, database_url: str, own_nats: EmbeddedNats, data_dir: Path, db: AsyncConnection
    ) -> None:
        store, backup = data_dir / "nats", data_dir / "backup"
        async with client_of(own_nats.url) as client:
            await published(database_url, client, 200)
            await own_nats.stop()
            shutil.copytree(store, backup)
            await own_nats.start()
            async with session_of(database_url) as session:
                await record_many(session, 100)
            async with running_relay(database_url, client, QUICK):
                before = await messages(client, 300)
                await eventually(partial(verdict_is, db, "ok"))

            await own_nats.stop()
            shutil.rmtree(store)
            shutil.copytree(backup, store)
            await own_nats.start()
            await eventually(partial(is_connected, client))
            async with running_relay(database_url, client, QUICK):
                after = await messages(client, 300)
                assert (await verdict(db, "repaired")).repaired == 100

        assert headers(after) == headers(before)

    async def test_what_a_limit_of_the_stream_dropped_is_left_dropped(
        self, database_url: str, nats_url: str, db: AsyncConnection
    ) -> None:
        async with client_of(nats_url) as client:
            await client.jetstream().add_stream(
                name="EVENTS", subjects=["events.>"], max_msgs=20, allow_atomic=True
            )
            async with session_of(database_url) as session:
                await record_many(session, 50)
            async with asked(database_url, client):
                await eventually(partial(at_end, client, 50))
                await client.request(RECONCILE_SUBJECT, timeout=5)
                assert (await verdict(db, "ok")).missing == 0
            assert positions(await messages(client, 20)) == list(range(31, 51))


class TestTruthfulness:
    async def test_an_event_taken_for_a_duplicate_does_not_count_as_published(
        self, database_url: str, nats_url: str, db: AsyncConnection
    ) -> None:
        """The stream is emptied, and the relay's place lost, inside the duplicate window."""
        async with client_of(nats_url) as client, session_of(database_url) as session:
            before = await published(database_url, client, 30)
            await client.jetstream().purge_stream("EVENTS")
            await session.execute(
                "UPDATE bus.relay_state SET cursor = 0, stream_sequence = 30; "
                "DELETE FROM bus.reconciliation"
            )
            async with running_relay(database_url, client, QUICK):
                after = await messages(client, 30)
                await verdict(db, "repaired")

        assert sorted(map(str, headers(after))) == sorted(map(str, headers(before)))

    async def test_a_server_that_goes_on_refusing_is_told_as_incomplete(
        self,
        database_url: str,
        nats_url: str,
        db: AsyncConnection,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        @asynccontextmanager
        async def nothing(*_: object) -> AsyncIterator[None]:
            yield

        monkeypatch.setattr("fleetbus.server.relay.reconciler.forgetting_duplicates", nothing)
        async with client_of(nats_url) as client:
            await published(database_url, client, 30)
            await client.jetstream().purge_stream("EVENTS", keep=10)
            async with running_relay(database_url, client, QUICK):
                found = await verdict(db, "incomplete")
            assert (found.missing, found.repaired) == (20, 0)
            assert await stream_length(client) == 10

    async def test_what_is_in_work_is_not_missing(
        self, database_url: str, nats_url: str, db: AsyncConnection
    ) -> None:
        async with (
            client_of(nats_url) as client,
            session_of(database_url) as slow,
            session_of(database_url) as session,
            asked(database_url, client),
        ):
            transaction = slow.transaction()
            await transaction.start()
            await record(slow, "slow")
            await record(session, "quick")
            await stream_reaches(client, 1)
            await client.request(RECONCILE_SUBJECT, timeout=5)
            assert (await verdict(db, "ok")).missing == 0
            await transaction.commit()
            found = await messages(client, 2)
            await client.request(RECONCILE_SUBJECT, timeout=5)
            await eventually(partial(has_checked, db, 2))

        assert positions(found) == [2, 1]

    async def test_an_unchanged_past_is_not_read_again(
        self, database_url: str, nats_url: str, db: AsyncConnection
    ) -> None:
        async with client_of(nats_url) as client, session_of(database_url) as session:
            await published(database_url, client, 40)
            async with running_relay(database_url, client, QUICK):
                await eventually(partial(has_checked, db, 40))
                await record(session, "a", "b")
                await stream_reaches(client, 42)
            async with running_relay(database_url, client, QUICK):
                await eventually(partial(has_checked, db, 2))
