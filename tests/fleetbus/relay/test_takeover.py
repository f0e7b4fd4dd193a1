"""One relay is active; another continues where it ended."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage.own import outbox as _outbox
from fleetbus.server.relay.relay import Relay, RelaySettings
from fleetbus.server.relay.stream import StreamSettings
from tests.fleetbus.relay.running import (
    QUICK,
    RELAY_SESSION,
    Session,
    client_of,
    entities,
    eventually,
    is_active,
    record,
    record_many,
    running_relay,
    session_of,
    stream_reaches,
)


class TestTakeover:
    async def test_one_is_active_and_another_takes_over_when_its_session_ends(
        self, database_url: str, nats_url: str
    ) -> None:
        async with (
            session_of(database_url) as session,
            client_of(nats_url) as client,
            running_relay(database_url, client, QUICK) as first,
            running_relay(database_url, client, QUICK) as second,
        ):
            for number in range(6):
                await record(session, f"e{number}")
                await stream_reaches(client, number + 1)
                # One whose session has ended takes itself for active until it uses it again.
                await eventually(partial(one_is_active, first, second))
                await session.execute(f"SELECT pg_terminate_backend(pid) FROM ({RELAY_SESSION})")
                await eventually(partial(taken_over, first, second, times=number + 2))

            assert await entities(client, 6) == [f"e{number}" for number in range(6)]

    async def test_a_stopped_relay_hands_over_at_once(
        self, database_url: str, nats_url: str
    ) -> None:
        seldom = RelaySettings(poll_interval=60)
        async with (
            client_of(nats_url) as client,
            client_of(nats_url) as other_client,
            running_relay(database_url, client, seldom) as first,
        ):
            await eventually(lambda: is_active(first))
            async with running_relay(database_url, other_client, seldom) as second:
                await asyncio.sleep(0.3)
                assert not second.metrics.active

                first.stop()
                await eventually(lambda: is_active(second), within=5)
                assert not first.metrics.active

    async def test_what_was_published_but_not_saved_is_taken_from_the_stream(
        self, database_url: str, nats_url: str
    ) -> None:
        """Without the server's help: its de-duplication has forgotten the events by then."""
        forgetful = RelaySettings(poll_interval=0.1, stream=StreamSettings(duplicate_window=0.1))
        async with session_of(database_url) as session, client_of(nats_url) as client:
            await record_many(session, 1200)
            async with running_relay(database_url, client, forgetful):
                await stream_reaches(client, 1200)
            await session.execute("UPDATE bus.relay_state SET cursor = 0, stream_sequence = 0")
            await record(session, "new")
            await asyncio.sleep(0.5)
            async with running_relay(database_url, client, forgetful):
                assert (await entities(client, 1201))[-1] == "new"
            assert await session.fetchval("SELECT cursor FROM bus.relay_state") == 1201
            assert await session.fetchval("SELECT stream_sequence FROM bus.relay_state") == 1201

    async def test_a_place_that_is_far_behind_is_made_up_for_in_pieces(
        self, database_url: str, nats_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A relay that ends on the way leaves no event to be published twice."""
        short = StreamSettings(duplicate_window=0.1)
        forgetful = RelaySettings(poll_interval=0.1, page=100, stream=short)
        async with session_of(database_url) as session, client_of(nats_url) as client:
            for _ in range(10):
                await record_many(session, 100)
            async with running_relay(database_url, client, forgetful):
                await stream_reaches(client, 1000)
            await session.execute("UPDATE bus.relay_state SET cursor = 0, stream_sequence = 0")
            with monkeypatch.context() as patched:
                patched.setattr(_outbox, "save_relay_state", failing_after(3))
                async with running_relay(database_url, client, forgetful) as relay:
                    await eventually(partial(failed, relay))
            async with running_relay(database_url, client, forgetful):
                await eventually(partial(reached, session, 1000))
                assert len(await entities(client, 1000)) == 1000

    async def test_a_cancellation_that_a_library_swallows_still_ends_it(
        self, database_url: str, nats_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        swallowed: list[BaseException] = []

        async def swallow(_: AsyncConnection) -> bool:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError as cancellation:
                if swallowed:
                    raise
                swallowed.append(cancellation)
                raise ConnectionError from None
            return False

        monkeypatch.setattr(_outbox, "try_relay_lock", swallow)
        async with (
            client_of(nats_url) as client,
            running_relay(database_url, client, QUICK),
        ):
            await asyncio.sleep(0.3)


def failing_after(count: int) -> Callable[..., Awaitable[int]]:
    """What saves the relay's state so often, and then fails."""
    saves = 0
    save = _outbox.save_relay_state

    async def failing(*arguments: Any) -> int:
        nonlocal saves
        saves += 1
        if saves > count:
            raise ConnectionError
        return await save(*arguments)

    return failing


async def failed(relay: Relay) -> bool:
    return relay.metrics.errors > 0


async def reached(session: Session, position: int) -> bool:
    return bool(await session.fetchval("SELECT cursor FROM bus.relay_state") == position)


async def one_is_active(*relays: Relay) -> bool:
    return sum(relay.metrics.active for relay in relays) == 1


async def taken_over(*relays: Relay, times: int) -> bool:
    return sum(relay.metrics.takeovers for relay in relays) >= times


class TestMetrics:
    async def test_they_tell_progress_and_backlog(self, database_url: str, nats_url: str) -> None:
        async with session_of(database_url) as session, client_of(nats_url) as client:
            await record_many(session, 30)
            async with running_relay(database_url, client, QUICK) as relay:
                await stream_reaches(client, 30)
                await eventually(lambda: caught_up(relay))

                assert relay.metrics.published == 30
                assert relay.metrics.last_position == 30
                assert relay.metrics.errors == 0
                assert relay.metrics.backlog_age is None
            assert relay.metrics.backlog is None


async def caught_up(relay: Relay) -> bool:
    return relay.metrics.backlog == 0
