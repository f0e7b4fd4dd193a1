"""What ``fleetbus doctor`` looks at: servers, schema, stream, relay, sweeper, detector, keys."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.js.errors import NotFoundError
from sqlalchemy import text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from bus.kit.urls import without_secrets
from bus.storage.connecting import CONNECT_TIMEOUT
from bus.storage.database import describe, driver_url
from bus.storage.own import outbox as _outbox
from bus.storage.own import reconciliation as _reconciliation
from bus.storage.own import sweeps as _sweeps
from bus.storage.sealed import NOT_CONFIGURED
from fleetbus import domain
from fleetbus.cli import stream_condition as condition
from fleetbus.client.connection.client import RepliesRefused, connect
from fleetbus.server.config import Settings
from fleetbus.server.detector.detector import ASK_SUBJECT
from fleetbus.server.discovery.asking import everybody
from fleetbus.server.discovery.srv import PROCESS_CONTEXT
from fleetbus.server.relay.stream import StreamSettings, StreamUnfit, ensure_stream
from fleetbus.server.schema import SchemaMismatch, check, head
from fleetbus.server.starting import words
from fleetbus.server.sweeper.sweeper import sweeps

LARGEST_BACKLOG_AGE = timedelta(seconds=10)
LARGEST_CLOCK_DIFFERENCE = 1.0
LARGEST_ROUND_TRIP = 0.25
"""Seconds; a command takes four round trips to the database."""

QUERY = "db.tasks.list"

RUNS = 5

LATE_ROUNDS = 20
"""Rounds that a job of the sweeper may miss before it counts as not running."""

_RELAY_LOCKED = text("""
    SELECT EXISTS (
        SELECT FROM pg_locks
        WHERE locktype = 'advisory' AND granted AND objsubid = 1
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND (CAST(classid AS bigint) << 32) + CAST(objid AS bigint) = :key
    )
""")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    """What to do if it is not ok."""


async def examine(settings: Settings) -> list[Check]:
    """Look at everything that can be looked at; what rests on something missing is left out."""
    postgres, bus = await asyncio.gather(
        _collect(_examine_postgres(settings)), _collect(_examine_nats(settings))
    )
    return [*postgres, *bus]


async def _collect(checks: AsyncIterator[Check]) -> list[Check]:
    return [check async for check in checks]


async def _examine_postgres(settings: Settings) -> AsyncIterator[Check]:
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
    took = await _fastest(lambda: db.scalar(text("SELECT 1")))
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
    active = await db.scalar(_RELAY_LOCKED, {"key": _outbox.RELAY_LOCK})
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
    detail = f"compared {when}, {found.missing} were missing"
    if found.missing:
        detail += " and came back"
    told, goes_on = await condition.foreign(db)
    return Check(name, not goes_on, detail + told, condition.NOBODY_ELSE)


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
    return Check("sweeper", True, f"{len(expected)} jobs ran when they should")


async def _examine_nats(settings: Settings) -> AsyncIterator[Check]:
    where = without_secrets(settings.nats_url)
    reasons: list[Exception] = []

    async def note(error: Exception) -> None:
        reasons.append(error)

    try:
        client = await connect(
            settings.nats_servers,
            name="fleetbus-doctor",
            inbox_prefix=settings.inbox_prefix,
            error_cb=note,
            connect_timeout=int(CONNECT_TIMEOUT),
            reconnect_time_wait=0.1,
        )
    except (OSError, NatsError, TimeoutError, ValueError) as error:
        remedy = "start it, or name another with NATS_URL or --nats-url"
        yield Check("NATS", False, f"{where}: {words((*reasons, error)[0])}", remedy)
        return
    try:
        took = await _fastest(client.flush)
        found = client.connected_server_version
        version = f"{found.major}.{found.minor}.{found.patch}"
        yield Check("NATS", True, f"{version} at {where}, there and back in {took * 1000:.1f} ms")
        yield await _stream(client, settings)
        yield (handlers := await _handlers(client))
        if handlers.ok:
            processes = await _processes(client)
            yield _load(processes)
            yield _keys(processes)
            yield await _detection(client, settings)
            yield await _query(client)
    except RepliesRefused as refused:
        remedy = "set FLEETBUS_INBOX_PREFIX to what the NATS user may subscribe to"
        yield Check("inbox", False, str(refused), remedy)
    finally:
        await client.close()


async def _stream(client: Client, settings: Settings) -> Check:
    js, name = client.jetstream(), "stream"
    try:
        info = await js.stream_info(settings.stream)
        await ensure_stream(js, StreamSettings(name=settings.stream), report=False)
    except NotFoundError:
        what = f"there is no stream {settings.stream}"
        return Check(name, False, what, "a `fleetbus serve` without --no-relay creates it")
    except StreamUnfit as unfit:
        return Check(name, False, str(unfit), "fix it with `nats stream edit`")
    except (NatsError, TimeoutError) as error:
        start = "start nats-server with --jetstream"
        return Check(name, False, f"JetStream does not answer: {words(error)}", start)
    detail = await condition.described(js, info)
    if condition.refuses(info):
        return Check(name, False, f"{detail}; it is full", condition.MAKE_ROOM)
    if not info.config.allow_atomic:
        remedy = "use NATS 2.12 or newer and `nats stream edit --allow-batch`"
        return Check(name, False, f"{detail}; it does not accept atomic batches", remedy)
    return Check(name, True, detail)


async def _handlers(client: Client) -> Check:
    """Ask who is there, as any client of a NATS service can."""
    answers = await everybody(client, "$SRV.PING")
    processes = Counter(answer["name"] for answer in answers)
    contexts = [c.name for c in domain.catalogue().contexts if c.operations]
    versions = ", ".join(sorted({answer["version"] for answer in answers}))
    serve = "start `fleetbus serve`"
    if not any(name in processes for name in contexts):
        return Check("handlers", False, "no handler process answers", serve)
    if silent := [name for name in contexts if name not in processes]:
        detail = f"nobody answers for {', '.join(silent)}"
        return Check("handlers", False, detail, f"{serve} of this version (there is {versions})")
    count = max(processes[name] for name in contexts)
    return Check(
        "handlers",
        True,
        f"{count} {'process answers' if count == 1 else 'processes answer'}, version {versions}",
    )


async def _processes(client: Client) -> list[dict[str, Any]]:
    """What each handler process says of itself."""
    stats = await everybody(client, f"$SRV.STATS.{PROCESS_CONTEXT}")
    told = [endpoint["data"] for answer in stats for endpoint in answer["endpoints"]]
    return [data["process"] for data in told if "process" in data]


def _load(processes: list[dict[str, Any]]) -> Check:
    """Whether requests, connections or events pile up."""
    relays = [process["relay"] for process in processes if process["relay"]]
    waiting = sum(use["waiting"] for process in processes for use in process["pools"].values())
    failed = sum(relay["publish_errors"] for relay in relays)
    shed = sum(process["shed"] for process in processes)
    detail = (
        f"{sum(process['in_flight'] for process in processes)} requests in flight, {shed} shed, "
        f"{waiting} wait for a connection, {failed} publish errors"
    )
    if trouble := next((found for relay in relays if (found := relay.get("trouble"))), ""):
        what, _, remedy = " ".join(trouble.split()).rpartition("; ")
        return Check("load", False, f"{detail}; the relay is stopped by: {what}", remedy)
    if last := next((relay["last_error"] for relay in relays if relay["last_error"]), ""):
        detail += f"; the relay's last interruption: {' '.join(last.split())}"
    blind = sum(process["outbox"] is None for process in processes)
    if blind:
        detail = f"{blind} of {len(processes)} processes cannot read the database; {detail}"
    return Check("load", not blind, detail, "look at the handlers' logs")


def _keys(processes: list[dict[str, Any]]) -> Check:
    """Whether every process can read all credentials; of keys nothing but their ids is known."""
    name, told = "keys", [process["keys"] for process in processes if "keys" in process]
    rings = {tuple(keys["ids"]) for keys in told}
    wrong = sorted({keys["problem"] for keys in told} - {"", NOT_CONFIGURED})
    if wrong:
        remedy = "fix FLEETBUS_CREDENTIALS_KEYS or the file, and restart the handlers"
        return Check(name, False, f"credentials cannot be used: {wrong[0]}", remedy)
    if len(rings) > 1:
        remedy = "give every process the same keys in the same order, and restart it"
        return Check(name, False, "handler processes have different keys", remedy)
    written: dict[str, int] = next((c for keys in told if (c := keys["credentials"])), {})
    ids, count = next(iter(rings), ()), sum(written.values())
    if missing := sorted(written.keys() - set(ids)):
        detail = f"{sum(written[key] for key in missing)} of {count} credentials need "
        remedy = "put the key back behind the others, or set these credentials again"
        return Check(name, False, f"{detail}{', '.join(missing)}, which no process has", remedy)
    if not ids:
        return Check(name, True, "none, and no credentials that need one")
    outdated = count - written.get(ids[0], 0)
    detail = f"{len(ids)}, {ids[0]} encrypts; {count} credentials, {outdated} to be encrypted again"
    return Check(name, True, detail)


async def _detection(client: Client, settings: Settings) -> Check:
    """Ask the handler processes whether they hear of lost connections."""
    name, leases = "detection", "only leases reveal crashes"
    answers = await everybody(client, ASK_SUBJECT)
    troubles = sorted({trouble for answer in answers if (trouble := answer["trouble"])})
    if troubles:
        remedy = "see what FLEETBUS_NATS_SYSTEM_URL names, and the handlers' logs"
        return Check(name, False, f"lost connections are not noticed: {troubles[0]}", remedy)
    if answers:
        count = f"{len(answers)} {'process' if len(answers) == 1 else 'processes'}"
        return Check(name, True, f"lost connections are noticed by {count}")
    if settings.watched is None:
        return Check(name, True, f"off, {leases}: FLEETBUS_NATS_SYSTEM_URL is not set")
    remedy = "give the handlers FLEETBUS_NATS_SYSTEM_URL, and start one without --no-detector"
    return Check(name, False, f"no handler process listens, {leases}", remedy)


async def _query(client: Client) -> Check:
    """Time a query all the way: NATS, handler, Postgres and back."""
    refused = ""

    async def ask() -> None:
        nonlocal refused
        answer = await client.request(QUERY, b'{"limit": 1}', timeout=5)
        refused = (answer.headers or {}).get("Nats-Service-Error", "")

    try:
        took = await _fastest(ask)
    except NoRespondersError:
        return Check("query", False, f"nobody answers {QUERY}", "start `fleetbus serve`")
    except (NatsError, TimeoutError) as error:
        return Check("query", False, f"{QUERY}: {words(error)}", "look at the handlers' logs")
    if refused:
        return Check("query", False, f"{QUERY}: {refused}", "look at the handlers' logs")
    detail = f"{QUERY} is answered in {took * 1000:.1f} ms"
    return Check("query", took <= LARGEST_ROUND_TRIP, detail, "the service is loaded: add handlers")


async def _fastest(action: Callable[[], Awaitable[Any]]) -> float:
    """The shortest of a few runs, in seconds: what it takes when nothing is in the way."""
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        await action()
        times.append(time.perf_counter() - started)
    return min(times)
