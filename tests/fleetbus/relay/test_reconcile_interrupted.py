"""A repair that is interrupted or refused: nothing is there twice, nothing new goes before."""

import shutil
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.js.api import StreamInfo
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage.own.outbox import OutboxRow
from fleetbus.embedded.nats import EmbeddedNats
from fleetbus.server.relay.leader import Leader
from fleetbus.server.relay.stream import forgetting_duplicates
from tests.fleetbus.relay.reconciling import (
    has_checked,
    headers,
    holds,
    is_connected,
    positions,
    published,
)
from tests.fleetbus.relay.running import (
    QUICK,
    RELAY_SESSION,
    Session,
    client_of,
    eventually,
    messages,
    record,
    running_relay,
    saved,
    session_of,
    stream_reaches,
)


class TestInterrupted:
    async def test_a_relay_killed_while_it_repairs_leaves_nothing_twice(
        self, database_url: str, nats_url: str, db: AsyncConnection
    ) -> None:
        """Each of several relays is ended by its database session somewhere in the repair."""
        small = replace(QUICK, page=20)
        async with client_of(nats_url) as client, session_of(database_url) as session:
            before = await published(database_url, client, 400)
            await client.jetstream().delete_stream("EVENTS")
            for reached in (50, 150, 250):
                async with running_relay(database_url, client, small):
                    await stream_reaches(client, reached)
                    await end_relay(session)
            async with running_relay(database_url, client, small):
                await eventually(partial(holds, client, 400))
                after = await messages(client, 400)

        assert Counter(map(str, headers(after))) == Counter(map(str, headers(before)))

    async def test_a_relay_interrupted_while_it_repairs_lets_nothing_new_go_first(
        self,
        database_url: str,
        own_nats: EmbeddedNats,
        data_dir: Path,
        db: AsyncConnection,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The stream was found whole before the backup, so what is left of it looks whole."""
        store, backup = data_dir / "nats", data_dir / "backup"
        small = replace(QUICK, page=20)
        async with client_of(own_nats.url) as client, session_of(database_url) as session:
            await published(database_url, client, 50)
            await own_nats.stop()
            shutil.copytree(store, backup)
            await own_nats.start()
            await eventually(partial(is_connected, client))
            await session.execute("DELETE FROM bus.reconciliation")
            async with running_relay(database_url, client, small):
                await eventually(partial(has_checked, db, 50))
                for number in range(100):
                    await record(session, f"one of its own {number}")
                await eventually(partial(saved, session, 150))

            await own_nats.stop()
            shutil.rmtree(store)
            shutil.copytree(backup, store)
            await own_nats.start()
            await eventually(partial(is_connected, client))
            monkeypatch.setattr(Leader, "append", interrupted_once(session))
            async with running_relay(database_url, client, small):
                after = await messages(client, 151)

        assert positions(after) == list(range(1, 152))

    async def test_a_server_that_forgets_slowly_is_asked_again_before_new_events(
        self, database_url: str, nats_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tries = count()

        @asynccontextmanager
        async def slowly(client: Client, info: StreamInfo) -> AsyncIterator[None]:
            if next(tries) == 0:
                yield
                return
            async with forgetting_duplicates(client, info):
                yield

        monkeypatch.setattr("fleetbus.server.relay.reconciler.forgetting_duplicates", slowly)
        async with client_of(nats_url) as client, session_of(database_url) as session:
            await published(database_url, client, 30)
            await client.jetstream().purge_stream("EVENTS", keep=10)
            await record(session, "new")
            async with running_relay(database_url, client, QUICK):
                await eventually(partial(holds, client, 31))
            found = await messages(client, 31)

        assert positions(found) == [*range(21, 31), *range(1, 21), 31]


def interrupted_once(session: Session) -> Callable[..., Awaitable[None]]:
    """A relay that fails at the third page of a repair, when something new was recorded."""
    append, pages = Leader.append, count()

    async def interrupted(self: Leader, transactions: list[list[OutboxRow]]) -> None:
        if next(pages) == 2:
            await record(session, "new")
            raise ConnectionError
        await append(self, transactions)

    return interrupted


async def end_relay(session: Session) -> None:
    await session.execute(f"SELECT pg_terminate_backend(pid) FROM ({RELAY_SESSION}) AS relay")
