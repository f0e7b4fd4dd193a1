"""``fleetbus events verify`` and ``accept-timeline``."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from fleetbus.embedded.postgres import EmbeddedPostgres
from tests.fleetbus.cli.program import fleetbus
from tests.fleetbus.relay.reconciling import published, verdict
from tests.fleetbus.relay.running import (
    QUICK,
    client_of,
    eventually,
    record,
    running_relay,
    saved,
    session_of,
    stream_reaches,
)
from tests.fleetbus.relay.test_reconcile_timelines import copied


@pytest.fixture
def where(nats_url: str, database_url: str) -> dict[str, Any]:
    return {"NATS_URL": nats_url, "DATABASE_URL": database_url}


BUSY = replace(QUICK, watch_interval=3600)
"""A relay that looks once, at its start, and then only when it is asked to."""


class TestVerify:
    async def test_missing_events_are_told_and_repaired(
        self, where: dict[str, Any], database_url: str, nats_url: str, db: AsyncConnection
    ) -> None:
        async with client_of(nats_url) as client:
            await published(database_url, client, 3)
            async with running_relay(database_url, client, BUSY):
                await verdict(db, "ok")
                for sequence in (1, 3):
                    await client.jetstream().delete_msg("EVENTS", sequence)

                ended = await fleetbus("events", "verify", **where)
                assert (ended.code, ended.err) == (1, "")
                assert ended.out == "EVENTS lacks 2 of 3 events, at positions 1 to 3\n"

                ended = await fleetbus("events", "verify", "--repair", **where)
                assert (ended.code, ended.err) == (0, "")
                assert ended.out.splitlines()[-1] == "EVENTS holds all 3 events that it should"

    async def test_foreign_messages_are_told_and_removed(
        self, where: dict[str, Any], database_url: str, nats_url: str, db: AsyncConnection
    ) -> None:
        async with client_of(nats_url) as client:
            await published(database_url, client, 3)
            for _ in range(2):
                await client.jetstream().publish("events.somebody.else", b"")
            ended = await fleetbus("events", "verify", **where)
            assert (ended.code, ended.err) == (1, "")
            first, second = ended.out.splitlines()
            assert first == "EVENTS holds all 3 events that it should"
            assert second.startswith(
                "EVENTS holds 2 foreign messages, at sequences 4 to 5, "
                "the last on 'events.somebody.else'"
            )

            async with running_relay(database_url, client, BUSY):
                await verdict(db, "ok")
                ended = await fleetbus("events", "verify", "--repair", **where)
                assert (ended.code, ended.err) == (0, "")
                first, second = ended.out.splitlines()[-2:]
                assert first == "EVENTS holds all 3 events that it should"
                assert second.startswith("2 foreign messages were removed from EVENTS")

    async def test_copies_that_a_relay_has_passed_by_are_removed_when_it_is_asked(
        self, where: dict[str, Any], database_url: str, nats_url: str, db: AsyncConnection
    ) -> None:
        async with client_of(nats_url) as client, session_of(database_url) as session:
            found = await published(database_url, client, 3)
            headers = dict(found[0].headers or {}, **{"Nats-Msg-Id": "other"})
            headers = {k: v for k, v in headers.items() if not k.startswith("Nats-")}
            await client.jetstream().publish(found[0].subject, found[0].data, headers=headers)
            await session.execute("UPDATE bus.relay_state SET stream_sequence = 4")
            async with running_relay(database_url, client, BUSY):
                ended = await fleetbus("events", "verify", "--repair", **where)
                assert (ended.code, ended.err) == (0, "")
                assert "1 foreign messages were removed" in ended.out

    async def test_only_an_active_relay_repairs(
        self, where: dict[str, Any], database_url: str, nats_url: str
    ) -> None:
        async with client_of(nats_url) as client:
            await published(database_url, client, 5)
            await client.jetstream().purge_stream("EVENTS")
            ended = await fleetbus("events", "verify", "--repair", **where)
        assert ended.code == 1
        assert ended.err == (
            "no relay is active, and only it may publish: start `fleetbus serve`\n"
        )

    async def test_without_a_stream(self, where: dict[str, Any]) -> None:
        ended = await fleetbus("events", "verify", **where)
        assert ended.code == 1
        assert ended.err.startswith("there is no stream EVENTS")

    async def test_without_a_database(self, nats_url: str) -> None:
        nowhere = "postgresql://fleetbus@127.0.0.1:1/fleetbus"
        ended = await fleetbus("events", "verify", NATS_URL=nats_url, DATABASE_URL=nowhere)
        assert ended.code == 1
        assert ended.err.startswith(f"Postgres at {nowhere} cannot be used")


class TestAcceptTimeline:
    async def test_a_restored_database_goes_on(
        self, postgres: EmbeddedPostgres, database_url: str, nats_url: str
    ) -> None:
        async with client_of(nats_url) as client:
            await published(database_url, client, 5)
            async with copied(postgres, database_url) as copy:
                async with session_of(database_url) as session:
                    await record(session, "lost")
                    async with running_relay(database_url, client, QUICK):
                        await stream_reaches(client, 6)
                where: dict[str, Any] = {"NATS_URL": nats_url, "DATABASE_URL": copy}

                ended = await fleetbus("events", "verify", **where)
                assert ended.code == 1
                assert "the outbox has only reached position 5" in ended.err

                ended = await fleetbus("events", "accept-timeline", stdin="n\n", **where)
                assert ended.code == 1
                ended = await fleetbus("events", "accept-timeline", "--yes", **where)
                assert (ended.code, ended.err) == (0, "")
                assert "after sequence 6 EVENTS follows this database" in ended.out

                async with session_of(copy) as session:
                    await record(session, "new")
                    async with running_relay(copy, client, QUICK):
                        await eventually(partial(saved, session, 7))
                ended = await fleetbus("events", "verify", **where)
                assert (ended.code, ended.out) == (
                    0,
                    "EVENTS holds all 6 events that it should\n",
                )

    @pytest.mark.usefixtures("bus")
    async def test_without_a_conflict_there_is_nothing_to_accept(
        self, where: dict[str, Any], db: AsyncConnection
    ) -> None:
        ended = await fleetbus("events", "accept-timeline", "--yes", **where)
        assert (ended.code, ended.err) == (0, "")
        assert ended.out == "stream and database agree: there is nothing to decide\n"
        assert await db.scalar(text("SELECT count(*) FROM bus.timelines")) == 0
