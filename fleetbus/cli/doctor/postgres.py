"""The database: server, clock, schema, and what it says of relay, events and sweeper."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from bus.storage.connecting import CONNECT_TIMEOUT
from bus.storage.database import describe, driver_url
from bus.storage.locks import RELAY
from bus.storage.own import outbox as _outbox
from bus.storage.own import reconciliation as _reconciliation
from bus.storage.own import sweeps as _sweeps
from fleetbus import domain
from fleetbus.cli.doctor import stream as _stream
from fleetbus.cli.doctor.check import LARGEST_ROUND_TRIP, Check, fastest
from fleetbus.cli.doctor.rows_left import rows_left
from fleetbus.server.config import Settings
from fleetbus.server.schema import SchemaMismatch, check, head
from fleetbus.server.starting import words
from fleetbus.server.sweeper.sweeper import sweeps

LARGEST_BACKLOG_AGE = timedelta(seconds=10)
LARGEST_CLOCK_DIFFERENCE = 1.0

LATE_ROUNDS = 20
"""Rounds that a job of the sweeper may miss before it counts as not running."""


async def examine_postgres(settings: Settings) -> AsyncIterator[Check]:
    remedy = "start it, or name another with DATABASE_URL or --database-url"
    try:
        where, url = describe(settings.database_url), driver_url(settings.database_url)
    except (ArgumentError, ValueError):
        yield Check("Postgres", False, "DATABASE_URL is not a Postgres URL: postgresql://…", remedy)
        return
    engine = create_async_engine(
        url,
        isolation_level="AUTOCOMMIT",
        poolclass=NullPool,
        connect_args={"timeout": CONNECT_TIMEOUT},
    )
    try:
        async with engine.connect() as db:
            yield await _server(db, where)
            yield await _clock(db)
            yield (schema := await _schema(engine))
            if schema.ok:
                yield await _relay(db)
                yield await _events(db)
                yield await _sweeper(db, settings)
    except (OSError, SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        reason = words(getattr(error, "orig", None) or error)
        yield Check("Postgres", False, f"{where}: {reason}", remedy)


async def _server(db: AsyncConnection, where: str) -> Check:
    version = str(await db.scalar(text("SHOW server_version")))
    took = await fastest(lambda: db.scalar(text("SELECT 1")))
    detail = f"{version.partition(' ')[0]} at {where}, a query takes {took * 1000:.1f} ms"
    if await db.scalar(text("SELECT pg_is_in_recovery()")):
        return Check("Postgres", False, f"{detail}; a standby", "name the primary server")
    if await db.scalar(text("SELECT current_setting('transaction_read_only') = 'on'")):
        let = "let the service write: default_transaction_read_only is on"
        return Check("Postgres", False, f"{detail}; read-only", let)
    near = "bring handlers and database closer together"
    return Check("Postgres", took <= LARGEST_ROUND_TRIP, detail, near)


async def _clock(db: AsyncConnection) -> Check:
    before = datetime.now(UTC)
    theirs = await db.scalar(text("SELECT clock_timestamp()"))
    after = datetime.now(UTC)
    assert isinstance(theirs, datetime)
    apart = max((before - theirs).total_seconds(), (theirs - after).total_seconds(), 0.0)
    return Check(
        "clock",
        apart <= LARGEST_CLOCK_DIFFERENCE,
        f"this machine and the database are {apart:.1f} s apart",
        "set the clocks by NTP: deadlines of requests are points in time",
    )


async def _schema(engine: AsyncEngine) -> Check:
    try:
        await check(engine)
    except SchemaMismatch as mismatch:
        what, _, remedy = str(mismatch).rpartition(": ")
        return Check("schema", False, what, remedy)
    return Check("schema", True, f"at revision {head()}, as this version needs it")


async def _relay(db: AsyncConnection) -> Check:
    active = await RELAY.is_held(db)
    found = await _outbox.backlog(db)
    oldest = found.oldest
    detail = f"{'active' if active else 'none is active'}, {found.waiting} events wait"
    if found.waiting and oldest is not None:
        detail += f", the oldest for {oldest.total_seconds():.0f} s"
    detail += f"; published up to position {found.cursor}"
    if not active:
        return Check("relay", False, detail, "start a `fleetbus serve` without --no-relay")
    stuck = oldest is not None and oldest > LARGEST_BACKLOG_AGE
    return Check("relay", not stuck, detail, "see the line `load` and its log for the reason")


async def _events(db: AsyncConnection) -> Check:
    """What the last comparison of stream and outbox found."""
    name = "events"
    if (found := await _reconciliation.last_verdict(db)) is None:
        return Check(name, True, "stream and outbox have not been compared yet")
    when = f"{found.checked_at:%Y-%m-%d %H:%M:%S}Z"
    if found.state == "timeline_conflict":
        remedy = "restore the newer database, or accept this one: `fleetbus events accept-timeline`"
        return Check(
            name, False, f"nothing has been published since {when}: {found.detail}", remedy
        )
    if found.state == "incomplete":
        lost = found.detail or f"{found.missing - found.repaired} lost events are not back yet"
        return Check(name, False, f"{when}: {lost}", "the active relay tries again by itself")
    came_back = " and came back" if found.missing else ""
    detail = f"compared {when}, {found.missing} were missing{came_back}"
    told, goes_on = await _stream.foreign(db)
    return Check(name, not goes_on, detail + told, _stream.NOBODY_ELSE)


async def _sweeper(db: AsyncConnection, settings: Settings) -> Check:
    runs = await _sweeps.last_runs(db)
    now = datetime.now(UTC)
    wrong = []
    expected = sweeps(domain.registry(), settings)
    for job in expected:
        late = timedelta(seconds=max(LATE_ROUNDS * job.every, 30))
        if (run := runs.get(job.name)) is None or run.at is None:
            wrong.append(f"{job.name} never ran")
        elif now - run.at > late:
            wrong.append(f"{job.name} ran last {run.at:%Y-%m-%d %H:%M:%S}Z")
        elif run.error:
            wrong.append(f"{job.name} failed: {run.error}")
    if wrong:
        remedy = "start a `fleetbus serve` without --no-sweeper; its log says what fails"
        return Check("sweeper", False, "; ".join(wrong), remedy)
    return Check("sweeper", True, f"{len(expected)} jobs ran when they should{await rows_left(db)}")
