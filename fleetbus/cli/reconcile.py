"""``fleetbus events verify`` and ``accept-timeline``: the stream beside the outbox."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated

import typer

from fleetbus.cli.addresses import DatabaseUrl, NatsUrl, nats_address, running_stack
from fleetbus.cli.terminal import Failed, run, say

if TYPE_CHECKING:
    from nats.aio.client import Client
    from sqlalchemy.ext.asyncio import AsyncConnection

    from bus.storage.own.foreign_messages import Removed
    from bus.storage.own.reconciliation import Verdict
    from fleetbus.server.config import Settings
    from fleetbus.server.relay.comparison import Comparison

REPAIR_TIMEOUT = 600.0
"""Seconds that the relay may take to compare and repair when it is asked to."""

_ASK_TIMEOUT = 5.0
_LOCK_TIMEOUT = 15.0
_PAUSE = 0.2
_CLEANED_WITHIN = 1.0
"""Seconds in which the relay has removed some of what it found."""


def verify(
    *,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Ask the active relay to publish again what is missing."),
    ] = False,
    nats_url: NatsUrl = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Compare the stream with the outbox, event by event.

    It reads both from their beginnings and changes nothing. The exit code is
    1 if the stream lacks an event, if it holds messages that are not events
    of this system, or if it knows events that the database does not. The
    relay repairs what is missing by itself, at its start and every hour, and
    removes what is foreign; with --repair it is asked to do so now.

    Examples:
        fleetbus events verify
        fleetbus events verify --repair
    """
    run(_verify(_settings(nats_url, database_url), repair=repair))


def accept_timeline(
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    nats_url: NatsUrl = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Continue with a database that was restored to an earlier time.

    The stream then has events of changes that no longer exist, and the relay
    publishes nothing until this is decided. Accepting leaves those events in
    the stream, records from which sequence on the database's timeline is
    valid, and lets it continue with positions that no event in the stream has.

    Examples:
        fleetbus events accept-timeline
    """
    run(_accept(_settings(nats_url, database_url), yes=yes))


async def _verify(settings: Settings, *, repair: bool) -> None:
    from bus.storage.own.foreign_messages import removed
    from bus.storage.own.reconciliation import last_verdict
    from fleetbus.server.relay import timelines
    from fleetbus.server.relay.comparison import TimelineConflict

    async with _both(settings) as (client, conn):
        try:
            found = await timelines.compare(conn, client.jetstream(), settings.stream)
        except TimelineConflict as conflict:
            raise Failed(
                f"{conflict}.\n  Nothing is published until a person decides: restore the newer "
                "database,\n  or continue with this one: `fleetbus events accept-timeline`."
            ) from None
        _tell(settings, found, await removed(conn))
        if not found.missing and not found.foreign:
            return
        if not repair:
            raise typer.Exit(1)
        before = await last_verdict(conn)
        await _ask_for_repair(client)
        await _next_verdict(conn, before)
        found = await _compared_again(conn, client, settings.stream)
        _tell(settings, found, await removed(conn))
    if found.missing or found.foreign:
        raise typer.Exit(1)


async def _compared_again(conn: AsyncConnection, client: Client, stream: str) -> Comparison:
    """The comparison after the relay's own, which removes what is foreign step by step."""
    import asyncio

    from fleetbus.server.relay import timelines

    before = math.inf
    while True:
        found = await timelines.compare(conn, client.jetstream(), stream)
        if found.missing or not 0 < len(found.foreign) < before:
            return found
        before = len(found.foreign)
        await asyncio.sleep(_CLEANED_WITHIN)


def _tell(settings: Settings, found: Comparison, before: Removed | None) -> None:
    from bus.kit.logs import shown

    stream = settings.stream
    if found.missing:
        say(
            f"{stream} lacks {found.missing} of {found.checked} events, at positions "
            f"{found.missing_first} to {found.missing_last}"
        )
    else:
        say(f"{stream} holds all {found.checked} events that it should")
    if found.foreign:
        sequences = [message.sequence for message in found.foreign]
        say(
            f"{stream} holds {len(sequences)} foreign messages, at sequences "
            f"{min(sequences)} to {max(sequences)}, the last on {shown(found.foreign[-1].subject)}"
            ": the active relay removes new ones, and with --repair also those that it has missed"
        )
    if before is not None:
        say(
            f"{before.messages} foreign messages were removed from {stream} so far, the "
            f"last one {before.last_at:%Y-%m-%d %H:%M:%S}Z from {shown(before.last_subject)}"
        )


async def _ask_for_repair(client: Client) -> None:
    from nats.errors import NoRespondersError

    from fleetbus.server.relay.relay import RECONCILE_SUBJECT

    try:
        await client.request(RECONCILE_SUBJECT, timeout=_ASK_TIMEOUT)
    except (NoRespondersError, TimeoutError):
        raise Failed(
            "no relay is active, and only it may publish: start `fleetbus serve`"
        ) from None


async def _next_verdict(conn: AsyncConnection, before: Verdict | None) -> None:
    import asyncio

    from bus.storage.own.reconciliation import UNDER_WAY, last_verdict

    try:
        async with asyncio.timeout(REPAIR_TIMEOUT):
            found = before
            while found == before or (found is not None and found.detail == UNDER_WAY):
                await asyncio.sleep(_PAUSE)
                found = await last_verdict(conn)
    except TimeoutError:
        raise Failed("the relay was asked and is not done yet; its log says more") from None


async def _accept(settings: Settings, *, yes: bool) -> None:
    from fleetbus.server.relay import timelines

    async with _both(settings) as (client, conn):
        js = client.jetstream()
        found = await timelines.conflict(conn, js, await js.stream_info(settings.stream))
        if not found:
            say("stream and database agree: there is nothing to decide")
            return
        say(f"{found}.")
        if not yes:
            typer.confirm("Continue with this database?", abort=True)
        if not await timelines.lock_out_relays(conn, _LOCK_TIMEOUT):
            raise Failed("a relay is publishing: stop it, or try again")
        accepted = await timelines.accept(conn, js, settings.stream)
    say(
        f"accepted: after sequence {accepted.sequence} {settings.stream} follows this database, "
        f"at positions above {accepted.position - accepted.moved}"
    )
    if accepted.moved:
        say(f"{accepted.moved} events that wait for the relay were given new positions")


@contextlib.asynccontextmanager
async def _both(settings: Settings) -> AsyncIterator[tuple[Client, AsyncConnection]]:
    """NATS, and a connection to the database in autocommit mode."""
    import asyncpg
    from nats.errors import Error as NatsError
    from nats.js.errors import NotFoundError
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    from bus.storage.connecting import CONNECT_TIMEOUT
    from bus.storage.database import describe, driver_url
    from fleetbus.cli.addresses import Address
    from fleetbus.cli.connection import connected

    engine = create_async_engine(
        driver_url(settings.database_url),
        isolation_level="AUTOCOMMIT",
        poolclass=NullPool,
        connect_args={"timeout": CONNECT_TIMEOUT},
    )
    try:
        async with connected(Address(settings.nats_url)) as client, engine.connect() as conn:
            yield client, conn
    except NotFoundError:
        raise Failed(
            f"there is no stream {settings.stream}: the relay of a `fleetbus serve` creates it"
        ) from None
    except (NatsError, TimeoutError) as error:
        reason = str(error) or type(error).__name__
        raise Failed(f"reading the stream {settings.stream} failed: {reason}") from None
    except (OSError, SQLAlchemyError, asyncpg.PostgresError) as error:
        reason = str(getattr(error, "orig", error)) or type(error).__name__
        where = describe(settings.database_url)
        raise Failed(f"Postgres at {where} cannot be used: {reason}") from None
    finally:
        await engine.dispose()


def _settings(nats_url: str | None, database_url: str | None) -> Settings:
    """The settings, with the servers of the stack that runs here where none are named."""
    from fleetbus.cli.servers import settings

    if database_url is None and (stack := running_stack()) is not None:
        database_url = stack.database_url
    return settings(nats_url=nats_address(nats_url).url, database_url=database_url)
