"""The stream's limits: what was told is set, and what they drop is not lost."""

import asyncio
from dataclasses import replace
from functools import partial

from nats.aio.client import Client
from sqlalchemy.ext.asyncio import AsyncConnection

from fleetbus.server.config import Settings
from fleetbus.server.relay.limits import Limits
from fleetbus.server.relay.relay import RelaySettings
from fleetbus.server.relay.stream import StreamSettings, ensure_stream
from tests.fleetbus.relay.hostile import held, own_headers
from tests.fleetbus.relay.reconciling import answers, at_end, holds, positions, published, verdict
from tests.fleetbus.relay.running import (
    QUICK,
    client_of,
    eventually,
    is_active,
    messages,
    record,
    record_many,
    running_relay,
    session_of,
)

DAY = 86_400.0


def limited(limits: Limits) -> RelaySettings:
    return replace(QUICK, stream=StreamSettings(limits=limits))


async def has(client: Client, max_age: float, max_bytes: int) -> bool:
    config = (await client.jetstream().stream_info("EVENTS")).config
    return (config.max_age, config.max_bytes) == (max_age, max_bytes)


class TestSettings:
    def test_they_are_read_from_the_environment(self) -> None:
        told = Settings(stream_max_age_days=30, stream_max_bytes=10**9).events_stream.limits
        assert (told.new_age, told.new_bytes) == (30 * DAY, 10**9)
        untold = Settings().events_stream.limits
        assert (untold.new_age, untold.new_bytes) == (0, -1)

    async def test_a_stream_that_is_made_has_them(self, nats_url: str) -> None:
        async with client_of(nats_url) as client:
            limits = Limits(max_age_days=0.0005, max_bytes=10**6)
            await ensure_stream(client.jetstream(), StreamSettings(limits=limits))
            assert await has(client, 43.2, 10**6)

    async def test_what_only_a_new_stream_gets(self, nats_url: str) -> None:
        async with client_of(nats_url) as client:
            js = client.jetstream()
            await ensure_stream(js, StreamSettings(limits=Limits(max_bytes_at_creation=5000)))
            assert await has(client, 0, 5000)
            await ensure_stream(js, StreamSettings(limits=Limits(max_bytes_at_creation=6000)))
            assert await has(client, 0, 5000)

    async def test_a_stream_that_is_there_gets_what_was_told_and_nothing_else(
        self, database_url: str, nats_url: str
    ) -> None:
        async with client_of(nats_url) as client:
            js = client.jetstream()
            await js.add_stream(
                name="EVENTS", subjects=["events.>"], max_age=7 * DAY, description="mine"
            )
            async with running_relay(database_url, client, QUICK) as relay:
                await eventually(lambda: is_active(relay))
                assert await has(client, 7 * DAY, -1)
            for limits, age, size in (
                (Limits(max_bytes=10**6), 7 * DAY, 10**6),
                (Limits(max_age_days=1), DAY, 10**6),
                (Limits(max_bytes=10**7), DAY, 10**7),
                (Limits(max_age_days=0, max_bytes=0), 0, -1),
                (Limits(max_age_days=0.001), 86.4, -1),
            ):
                async with running_relay(database_url, client, limited(limits)) as relay:
                    await eventually(lambda: is_active(relay))
                    await eventually(partial(has, client, age, size))
            assert (await js.stream_info("EVENTS")).config.description == "mine"


class TestDropped:
    async def test_what_the_size_dropped_is_neither_missing_nor_brought_back(
        self, database_url: str, nats_url: str, db: AsyncConnection
    ) -> None:
        settings = limited(Limits(max_bytes=20_000))
        async with client_of(nats_url) as client, session_of(database_url) as session:
            await record_many(session, 200)
            async with running_relay(database_url, client, settings) as relay:
                await eventually(lambda: is_active(relay))
                await eventually(partial(at_end, client, 200))
                await eventually(partial(answers, client))
                assert (await verdict(db, "ok")).missing == 0
                await record(session, "last")
                await eventually(partial(at_end, client, 201))
                assert relay.metrics.repaired == 0
            async with running_relay(database_url, client, settings) as relay:
                await eventually(partial(answers, client))
                assert (await verdict(db, "ok")).missing == 0
                assert (relay.metrics.repaired, relay.metrics.foreign) == (0, 0)
            left = await held(client)
        assert 10 < len(left) < 100
        last = [int((m.headers or {})["Fleet-Position"]) for m in left]
        assert last == list(range(202 - len(left), 202))

    async def test_what_was_dropped_before_others_that_came_late(
        self, database_url: str, nats_url: str, db: AsyncConnection
    ) -> None:
        """A slow transaction has low positions, and stands behind what is higher and gone."""
        settings = limited(Limits(max_bytes=20_000))
        async with (
            client_of(nats_url) as client,
            session_of(database_url) as session,
            session_of(database_url) as slow,
            running_relay(database_url, client, settings) as relay,
        ):
            await eventually(lambda: is_active(relay))
            transaction = slow.transaction()
            await transaction.start()
            await record_many(slow, 5)
            await record_many(session, 100)
            await eventually(partial(at_end, client, 100))
            await transaction.commit()
            await eventually(partial(at_end, client, 105))
            await record_many(session, 30)
            await eventually(partial(at_end, client, 135))
            kept = await held(client)
            assert 5 < len(kept) < 60
            await client.jetstream().purge_stream("EVENTS", seq=101)
            await eventually(partial(answers, client))
            assert (await verdict(db, "ok")).missing == 0
            await asyncio.sleep(0.3)
            assert relay.metrics.repaired == 0

    async def test_what_was_too_old_is_neither_missing_nor_brought_back(
        self, database_url: str, nats_url: str, db: AsyncConnection
    ) -> None:
        async with client_of(nats_url) as client, session_of(database_url) as session:
            await published(database_url, client, 5)
            await session.execute(
                "UPDATE bus.outbox SET recorded_at = recorded_at - interval '1 hour'"
            )
            settings = limited(Limits(max_age_days=0.5 / DAY))
            async with running_relay(database_url, client, settings) as relay:
                await eventually(partial(holds, client, 0))
                await eventually(partial(answers, client))
                await asyncio.sleep(0.3)
                assert (await verdict(db, "ok")).missing == 0
                assert relay.metrics.repaired == 0
                assert relay.metrics.errors == 0

    async def test_a_copy_of_what_was_dropped_is_foreign(
        self, database_url: str, nats_url: str
    ) -> None:
        """Whether a relay sees it come or not."""
        async with client_of(nats_url) as client, session_of(database_url) as session:
            found = await published(database_url, client, 30)
            settings = limited(Limits(max_bytes=5_000))
            js = client.jetstream()

            async def published_again() -> None:
                headers = own_headers(found[0]) | {"Nats-Msg-Id": "another"}
                await js.publish(found[0].subject, found[0].data, headers=headers)

            async with running_relay(database_url, client, settings) as relay:
                await eventually(partial(has, client, 0, 5_000))
                await published_again()
                await record(session, "a")
                await eventually(partial(_ends_with, client, "a"))
                assert "e1" not in await _entities(client)
                assert relay.metrics.errors == 0
            await published_again()
            await record(session, "b")
            async with running_relay(database_url, client, settings):
                await eventually(partial(_ends_with, client, "b"))
                assert "e1" not in await _entities(client)

    async def test_what_an_emptied_stream_held_comes_back_as_far_as_it_fits(
        self, database_url: str, nats_url: str, db: AsyncConnection
    ) -> None:
        async with client_of(nats_url) as client:
            settings = limited(Limits(max_bytes=10**6))
            await published(database_url, client, 20)
            async with running_relay(database_url, client, settings):
                await eventually(partial(has, client, 0, 10**6))
                await verdict(db, "ok")
            await client.jetstream().purge_stream("EVENTS")
            async with running_relay(database_url, client, settings):
                await eventually(partial(answers, client))
                assert positions(await messages(client, 20)) == list(range(1, 21))


async def _entities(client: Client) -> list[str]:
    return [(m.headers or {}).get("ce-subject", "?") for m in await held(client)]


async def _ends_with(client: Client, entity: str) -> bool:
    """Whether this is the last one and nothing else is there that is none of ours."""
    found = await held(client)
    if not found or (found[-1].headers or {}).get("ce-subject") != entity:
        return False
    return all((m.headers or {})["Nats-Msg-Id"] != "another" for m in found)
