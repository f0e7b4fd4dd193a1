"""A database that went back in time: nothing is published until a person has decided."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
from nats.aio.client import Client
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from bus.storage.database import driver_url
from bus.storage.own.reconciliation import last_verdict
from fleetbus.embedded.postgres import EmbeddedPostgres
from fleetbus.server.relay import timelines
from fleetbus.server.relay.comparison import TimelineConflict
from fleetbus.server.relay.timelines import Accepted
from tests.fleetbus.relay.running import (
    QUICK,
    client_of,
    eventually,
    messages,
    record,
    record_many,
    running_relay,
    saved,
    session_of,
    stream_length,
    stream_reaches,
)
from tests.servers import execute


@asynccontextmanager
async def connection(url: str) -> AsyncIterator[AsyncConnection]:
    engine = create_async_engine(driver_url(url), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    async with engine.connect() as conn:
        yield conn
    await engine.dispose()


@asynccontextmanager
async def copied(postgres: EmbeddedPostgres, url: str) -> AsyncIterator[str]:
    """A copy of a database as it is now."""
    name = url.rpartition("/")[2]
    await execute(postgres.url, f"CREATE DATABASE {name}_copy TEMPLATE {name}")
    try:
        yield f"{url}_copy"
    finally:
        await execute(postgres.url, f"DROP DATABASE {name}_copy WITH (FORCE)")


async def publish(url: str, client: Client, count: int, total: int) -> None:
    """Record events and relay them; afterwards nobody is connected."""
    async with session_of(url) as session:
        await record_many(session, count)
        async with running_relay(url, client, QUICK):
            await stream_reaches(client, total)
            await eventually(partial(saved, session, total))


@pytest.fixture
async def restored(
    postgres: EmbeddedPostgres, database_url: str, nats_url: str
) -> AsyncIterator[str]:
    """A copy from when 20 events were in the stream, which holds 30 by now."""
    async with client_of(nats_url) as client:
        await publish(database_url, client, 20, 20)
        async with copied(postgres, database_url) as copy:
            await publish(database_url, client, 10, 30)
            yield copy


async def in_conflict(conn: AsyncConnection) -> bool:
    found = await last_verdict(conn)
    return found is not None and found.state == "timeline_conflict"


async def is_whole(conn: AsyncConnection) -> bool:
    found = await last_verdict(conn)
    return found is not None and found.state == "ok"


async def accepted(conn: AsyncConnection, client: Client) -> Accepted:
    assert await timelines.lock_out_relays(conn, 20)
    return await timelines.accept(conn, client.jetstream(), "EVENTS")


class TestConflict:
    @pytest.mark.parametrize("meanwhile", [0, 4])
    async def test_nothing_is_published_and_it_is_said_once(
        self, restored: str, nats_url: str, meanwhile: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Whether the positions of the stream are still to come, or taken by other events."""
        async with (
            client_of(nats_url) as client,
            session_of(restored) as session,
            connection(restored) as conn,
            running_relay(restored, client, QUICK) as relay,
        ):
            if meanwhile:
                await record(session, *(["new"] * meanwhile))
            await eventually(partial(in_conflict, conn))
            errors = relay.metrics.errors
            await record(session, "newer")
            await eventually(partial(tried_again, relay, errors + 2))

            assert await stream_length(client) == 30
            assert not relay.metrics.active
            found = await last_verdict(conn)
            assert found is not None
            assert "restored from an older copy" in found.detail
        said = [entry for entry in caplog.records if entry.levelno >= logging.ERROR]
        assert 1 <= len(said) <= 2
        assert "publishes nothing" in said[0].getMessage()

    async def test_a_conflict_before_the_relays_place_stops_it_for_good(
        self, database_url: str, nats_url: str
    ) -> None:
        """Found by the comparison, not at the takeover; looked for again at each later one."""
        async with client_of(nats_url) as client, connection(database_url) as conn:
            await publish(database_url, client, 20, 20)
            async with session_of(database_url) as session:
                await session.execute(
                    "UPDATE bus.outbox SET event_id = gen_random_uuid() WHERE position = 7"
                )
                async with running_relay(database_url, client, QUICK) as relay:
                    await eventually(partial(in_conflict, conn))
                    await eventually(partial(tried_again, relay, relay.metrics.errors + 1))
                    before = relay.metrics.takeovers
                    await record(session, "new")
                    await eventually(partial(tried_again, relay, relay.metrics.errors + 3))
                    assert relay.metrics.takeovers == before
            assert await stream_length(client) == 20

    async def test_a_stream_that_went_back_as_well_is_no_conflict(
        self, restored: str, nats_url: str
    ) -> None:
        async with client_of(nats_url) as client, connection(restored) as conn:
            await client.jetstream().delete_stream("EVENTS")
            async with session_of(restored) as session, running_relay(restored, client, QUICK):
                await record(session, "new")
                found = await messages(client, 21)
                assert not await in_conflict(conn)
        assert (found[-1].headers or {})["ce-subject"] == "new"

    async def test_verification_says_it_too(self, restored: str, nats_url: str) -> None:
        async with client_of(nats_url) as client, connection(restored) as conn:
            with pytest.raises(TimelineConflict, match="only reached position 20"):
                await timelines.compare(conn, client.jetstream(), "EVENTS")


async def tried_again(relay: object, errors: int) -> bool:
    return relay.metrics.errors >= errors  # type: ignore[attr-defined, no-any-return]  # a Relay


class TestAcceptance:
    @pytest.mark.parametrize("meanwhile", [0, 4, 25])
    async def test_the_database_goes_on_behind_all_that_the_stream_holds(
        self, restored: str, nats_url: str, meanwhile: int
    ) -> None:
        """What was recorded before the decision shares no position with the other timeline."""
        names = [f"e{number}" for number in range(meanwhile)]
        async with (
            client_of(nats_url) as client,
            session_of(restored) as session,
            connection(restored) as conn,
            running_relay(restored, client, QUICK),
        ):
            if names:
                await record(session, *names)
            await eventually(partial(in_conflict, conn))
            decided = await accepted(conn, client)
            assert (decided.sequence, decided.moved) == (30, meanwhile)
            await conn.close()

            await record(session, "last")
            found = await messages(client, 31 + meanwhile)
            async with connection(restored) as again:
                await eventually(partial(is_whole, again))
                compared = await timelines.compare(again, client.jetstream(), "EVENTS")

        told = [message.headers or {} for message in found]
        assert [headers["ce-subject"] for headers in told[30:]] == [*names, "last"]
        places = [int(headers["Fleet-Position"]) for headers in told]
        assert len(set(places)) == len(places)
        assert places[30:] == sorted(places[30:])
        assert places[30] > max(places[:30])
        assert len({headers["ce-id"] for headers in told}) == len(told)
        assert (compared.checked, compared.missing) == (21 + meanwhile, 0)

    async def test_replies_name_the_new_positions(self, restored: str, nats_url: str) -> None:
        async with (
            client_of(nats_url) as client,
            session_of(restored) as session,
            connection(restored) as conn,
        ):
            await record(session, "new")
            await session.execute(
                "INSERT INTO bus.requests (caller, key, fingerprint, status, reply, position) "
                "VALUES ('', 'k', 'f', 200, '{}', 21), ('', 'old', 'f', 200, '{}', 20)"
            )
            decided = await accepted(conn, client)
            rows = await session.fetch("SELECT key, position FROM bus.requests ORDER BY key")
            assert [tuple(row) for row in rows] == [("k", decided.position), ("old", 20)]

    async def test_a_second_restore_is_a_conflict_again(
        self, restored: str, nats_url: str, postgres: EmbeddedPostgres
    ) -> None:
        async with client_of(nats_url) as client:
            async with connection(restored) as conn:
                await accepted(conn, client)
            async with copied(postgres, restored) as older:
                async with session_of(restored) as session:
                    await record(session, "a", "b")
                    async with running_relay(restored, client, QUICK):
                        await stream_reaches(client, 32)
                async with connection(older) as conn, running_relay(older, client, QUICK):
                    await eventually(partial(in_conflict, conn))
                    assert await stream_length(client) == 32
