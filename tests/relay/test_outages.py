"""The database or the broker goes away and comes back, at the worst moments."""

import asyncio
import logging
import random
from functools import partial
from itertools import pairwise

import pytest
from nats.aio.client import Client

from fleetbus.embedded.nats import EmbeddedNats
from fleetbus.embedded.postgres import EmbeddedPostgres
from fleetbus.relay.relay import Relay, RelaySettings
from tests.relay.running import (
    QUICK,
    RELAY_SESSION,
    Session,
    client_of,
    entities,
    eventually,
    messages,
    no_holes,
    record,
    record_many,
    running_relay,
    session_of,
    stream_reaches,
)
from tests.servers import migrate


class TestOutages:
    async def test_the_broker_is_away_for_a_while(
        self, database_url: str, own_nats: EmbeddedNats, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, logger="fleetbus.relay")
        settings = RelaySettings(poll_interval=0.1, publish_timeout=0.5)
        async with (
            session_of(database_url) as session,
            client_of(own_nats.url) as client,
            running_relay(database_url, client, settings),
        ):
            await record(session, "before")
            await stream_reaches(client, 1)
            await eventually(partial(compared, session))
            await own_nats.stop()
            await record(session, "meanwhile-1", "meanwhile-2")
            await asyncio.sleep(1)
            await own_nats.start()

            assert await entities(client, 3) == ["before", "meanwhile-1", "meanwhile-2"]
        said = [entry.getMessage() for entry in caplog.records]
        assert sum("interrupted" in message for message in said) == 1
        assert sum("relaying after" in message for message in said) == 1

    async def test_the_database_is_away_for_a_while(
        self, own_postgres: EmbeddedPostgres, nats_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, logger="fleetbus.relay")
        await migrate(own_postgres.url)
        async with (
            client_of(nats_url) as client,
            running_relay(own_postgres.url, client, QUICK) as relay,
        ):
            async with session_of(own_postgres.url) as session:
                await record(session, "before")
            await stream_reaches(client, 1)
            await own_postgres.kill()
            await eventually(lambda: is_inactive(relay))
            await asyncio.sleep(0.5)
            await own_postgres.start()
            async with session_of(own_postgres.url) as session:
                await record(session, "after")

            assert await entities(client, 2) == ["before", "after"]
        said = [entry.getMessage() for entry in caplog.records]
        assert sum("interrupted" in message for message in said) == 1
        assert sum("relaying after" in message for message in said) == 1

    async def test_no_kill_of_the_broker_breaks_the_order(
        self, database_url: str, own_nats: EmbeddedNats
    ) -> None:
        settings = RelaySettings(poll_interval=0.1, publish_timeout=1, page=300)
        async with session_of(database_url) as session, client_of(own_nats.url) as client:
            await record_many(session, 20_000)
            async with running_relay(database_url, client, settings):
                for reached in (1, 4_000, 9_000):
                    await stream_reaches(client, reached)
                    await own_nats.kill()
                    await own_nats.start()

                    await eventually(lambda: is_connected(client))
                assert await positions(client, 20_000) == list(range(1, 20_001))

    @pytest.mark.parametrize("atomic", [True, False])
    async def test_everything_at_once(self, database_url: str, nats_url: str, atomic: bool) -> None:
        """Writers that commit, roll back and overlap; relays that are cut off and cancelled."""
        chance = random.Random(7)
        settings = RelaySettings(poll_interval=0.05, page=20, lookahead=500)
        async with session_of(database_url) as session, client_of(nats_url) as client:
            if not atomic:
                await client.jetstream().add_stream(name="EVENTS", subjects=["events.>"])
            writers = [
                asyncio.create_task(write(database_url, f"w{n}", random.Random(n)))
                for n in range(8)
            ]
            while not all(writer.done() for writer in writers):
                async with (
                    running_relay(database_url, client, settings),
                    running_relay(database_url, client, settings),
                ):
                    await asyncio.sleep(chance.random() * 0.4)
                    await session.execute(
                        f"SELECT pg_terminate_backend(pid) FROM ({RELAY_SESSION})"
                    )
                    await asyncio.sleep(chance.random() * 0.2)
            told = [entity for writer in writers for entity in await writer]
            async with running_relay(database_url, client, settings):
                found = await entities(client, len(told))
                await no_holes(session)

        assert sorted(found) == sorted(told)
        for name in {entity.split("-")[0] for entity in told}:
            assert in_order([entity for entity in found if entity.startswith(f"{name}-")])
        if atomic:
            assert together(found)


async def write(database_url: str, name: str, chance: random.Random) -> list[str]:
    """Transactions one after the other; what they committed."""
    told = []
    async with session_of(database_url) as session:
        for number in range(60):
            entities = [f"{name}-{number:03}-{part}" for part in range(chance.randint(1, 4))]
            transaction = session.transaction()
            await transaction.start()
            for entity in entities:
                await record(session, entity)
                await asyncio.sleep(chance.random() * 0.01)
            if chance.random() < 0.2:
                await transaction.rollback()
            else:
                await transaction.commit()
                told += entities
    return told


def in_order(names: list[str]) -> bool:
    return all(earlier < later for earlier, later in pairwise(names))


def together(names: list[str]) -> bool:
    transactions = [name.rsplit("-", 1)[0] for name in names]
    changes = sum(earlier != later for earlier, later in pairwise(transactions))
    return changes == len(set(transactions)) - 1


async def compared(session: Session) -> bool:
    """Whether the relay has compared the stream with the outbox, and so has nothing in hand."""
    return bool(await session.fetchval("SELECT count(*) FROM bus.reconciliation"))


async def is_inactive(relay: Relay) -> bool:
    return not relay.metrics.active


async def is_connected(client: Client) -> bool:
    return client.is_connected


async def positions(client: Client, count: int) -> list[int]:
    found = await messages(client, count)
    return [int((message.headers or {})["Fleet-Position"]) for message in found]
