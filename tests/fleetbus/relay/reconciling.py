"""What tests of the reconciler wait for and compare."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial

from nats.aio.client import Client
from nats.aio.msg import Msg
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage.own.reconciliation import State, Verdict, last_verdict
from fleetbus.server.relay.relay import RECONCILE_SUBJECT, Relay
from tests.fleetbus.relay.running import (
    QUICK,
    eventually,
    messages,
    record_many,
    running_relay,
    saved,
    session_of,
    stream_length,
)


async def verdict_is(db: AsyncConnection, state: State) -> bool:
    found = await last_verdict(db)
    return found is not None and found.state == state


async def verdict(db: AsyncConnection, state: State) -> Verdict:
    """The last verdict, once it is this one."""
    await eventually(partial(verdict_is, db, state))
    found = await last_verdict(db)
    assert found is not None
    return found


def headers(found: list[Msg]) -> list[dict[str, str]]:
    """What the relay wrote beside the events: no fences, which differ each time."""
    fences = ("Nats-Expected", "Nats-Batch")
    return [
        {name: value for name, value in (m.headers or {}).items() if not name.startswith(fences)}
        for m in found
    ]


def positions(found: list[Msg]) -> list[int]:
    return [int((message.headers or {})["Fleet-Position"]) for message in found]


async def published(database_url: str, client: Client, count: int) -> list[Msg]:
    """Events that a relay has put into the stream; it has ended."""
    async with session_of(database_url) as session:
        await record_many(session, count)
        async with running_relay(database_url, client, QUICK):
            found = await messages(client, count)
            await eventually(partial(saved, session, count))
    return found


@asynccontextmanager
async def asked(database_url: str, client: Client) -> AsyncIterator[Relay]:
    """A relay that has been asked to compare everything."""
    async with running_relay(database_url, client, QUICK) as relay:
        await eventually(partial(answers, client))
        yield relay


async def answers(client: Client) -> bool:
    try:
        await client.request(RECONCILE_SUBJECT, timeout=0.5)
    except Exception:  # noqa: BLE001  nobody is active yet
        return False
    return True


async def is_connected(client: Client) -> bool:
    return client.is_connected


async def holds(client: Client, count: int) -> bool:
    return await stream_length(client) == count


async def at_end(client: Client, sequence: int) -> bool:
    return (await client.jetstream().stream_info("EVENTS")).state.last_seq == sequence


async def has_checked(db: AsyncConnection, count: int, *, since: datetime | None = None) -> bool:
    """Whether all was well in the last comparison, of so many events.

    With ``since`` in a later one than this, of so many at most: another may have come to some.
    """
    found = await last_verdict(db)
    if found is None or found.state != "ok":
        return False
    if since is None:
        return found.checked == count
    return found.checked_at > since and found.checked <= count
