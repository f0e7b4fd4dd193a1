"""The database or the broker goes away and comes back, at the worst moments."""

import asyncio
import logging
import random
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import DiscardPolicy
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage.own import outbox as _outbox
from contracts.planning.tasks import CreateTask
from fleetbus.client import Bus
from fleetbus.embedded.nats import EmbeddedNats
from fleetbus.embedded.postgres import EmbeddedPostgres
from fleetbus.server.relay.relay import Relay, RelaySettings
from fleetbus.server.service import Service
from tests.fleetbus.relay.running import (
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
    stream_length,
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

    async def test_the_stream_takes_nothing_for_a_while(
        self, bus: Bus, service: Service, db: AsyncConnection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Commands go on, what waits lies in the outbox and not in memory, and then it drains."""
        read = _outbox.read_outbox
        sizes: list[int] = []

        async def measured(*args: Any) -> _outbox.OutboxPage:
            page = await read(*args)
            sizes.append(len(page.rows))
            return page

        monkeypatch.setattr(_outbox, "read_outbox", measured)
        js = service.client.jetstream()
        config = (await js.stream_info("EVENTS")).config
        await js.update_stream(config.evolve(max_msgs=1, discard=DiscardPolicy.NEW))
        for number in range(30):
            await bus.call(CreateTask(name=f"meanwhile {number}"))
        await db.execute(text(BACKLOG))
        errors = service.relay.metrics.errors if service.relay else 0
        await eventually(lambda: has_failed(service, errors + 2))
        assert await stream_length(service.client) <= 1

        await js.update_stream(config)
        await bus.call(CreateTask(name="afterwards"))
        found = await positions(service.client, 30 + 5000 + 1)
        assert found == sorted(found)
        assert 1000 <= max(sizes) < RelaySettings().page + 50

    @pytest.mark.parametrize("atomic", [True, False])
    async def test_a_relay_that_was_paused_while_another_took_over(
        self, database_url: str, nats_url: str, monkeypatch: pytest.MonkeyPatch, atomic: bool
    ) -> None:
        """It goes on in the middle of what it was publishing, and the stream refuses that."""
        paused, resumed = asyncio.Event(), asyncio.Event()
        async with (
            session_of(database_url) as session,
            client_of(nats_url) as client,
            client_of(nats_url) as other_client,
        ):
            if not atomic:
                await client.jetstream().add_stream(name="EVENTS", subjects=["events.>"])
            request = client.request

            async def late(subject: str, *args: Any, **rest: Any) -> Msg:
                if subject.startswith("events.") and not resumed.is_set():
                    paused.set()
                    await resumed.wait()
                return await request(subject, *args, **rest)

            monkeypatch.setattr(client, "request", late)
            async with running_relay(database_url, client, QUICK) as first:
                await record(session, "a", "b", "c")
                await paused.wait()
                await session.execute(f"SELECT pg_terminate_backend(pid) FROM ({RELAY_SESSION})")
                async with running_relay(database_url, other_client, QUICK):
                    await stream_reaches(other_client, 3)
                    await record(session, "d", "e")
                    await stream_reaches(other_client, 5)
                    resumed.set()
                    await eventually(lambda: has_noticed(first))
                    await record(session, "f")
                    assert await entities(other_client, 6) == list("abcdef")

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


BACKLOG = """
    DO $$ BEGIN
        FOR i IN 1 .. 100 LOOP
            INSERT INTO bus.outbox (event_id, type, entity_id, data)
            SELECT gen_random_uuid(), 'task.completed', 'e' || n, '{}'
            FROM generate_series(1, 50) AS n;
            COMMIT;
        END LOOP;
    END $$
"""


async def has_failed(service: Service, times: int) -> bool:
    return service.relay is not None and service.relay.metrics.errors >= times


async def has_noticed(relay: Relay) -> bool:
    return relay.metrics.errors > 0


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
