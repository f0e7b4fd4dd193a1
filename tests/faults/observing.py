"""Looks at the tables, the outbox and the stream, past every link."""

from __future__ import annotations

import json
import re
import time
from datetime import datetime
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

import persistence.planning.task_creation  # noqa: F401  it says how tasks are inserted, and read
from bus.storage.database import driver_url
from bus.storage.entities import columns, entity_from
from contracts.planning.tasks import Task
from tests.faults.fleet import Fleet
from tests.faults.nodes import STREAM, connected
from tests.faults.world import Outage, Repair, Row, Told, World

FOREIGN = "Fault-Foreign"
"""Header of events that a fault put into the stream by hand."""

REST_LIMIT = 30.0
"""Seconds after healing within which everything has to be at rest."""

OUTBOX = """
    SELECT position, CAST(CAST(xid AS text) AS bigint) AS xid,
           CAST(event_id AS text) AS event_id, type, entity_id, CAST(data AS text) AS data, cause
    FROM bus.outbox ORDER BY position
"""

KEEP_OUTAGES = (
    "CREATE SCHEMA faults",
    "CREATE TABLE faults.outages (began timestamptz NOT NULL, ended timestamptz NOT NULL)",
    """
    CREATE FUNCTION faults.keep_outage() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO faults.outages VALUES (NEW.interrupted_at, NEW.restored_at);
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER keep_outage AFTER UPDATE OF restored_at ON bus.pulse
    FOR EACH ROW EXECUTE FUNCTION faults.keep_outage()
    """,
)
"""The pulse knows the last outage only: each is kept, in the transaction that gives leases back."""

OUTAGES = "SELECT began, ended FROM faults.outages ORDER BY ended"

DRAINED = """
    SELECT state.cursor >= coalesce((SELECT max(position) FROM bus.outbox), 0)
       AND state.holes = CAST('[]' AS jsonb) AS drained
    FROM bus.relay_state AS state
"""


LOST = re.compile(r"^(\S+ \S+) .*: (stream \S+ has lost \d+ events)", re.MULTILINE)
"""When the reconciler said what it found; a process that is killed while it mends has said it."""


async def observe(fleet: Fleet, rested: float | None) -> World:
    """Read everything, again if something changed meanwhile: leases run out at any time."""
    engine = create_async_engine(driver_url(fleet.database_url), poolclass=NullPool)
    try:
        async with engine.connect() as db, connected(*fleet.nats_urls) as client:
            while True:
                before = await outbox(db), await outages(db)
                stream, tasks = await events(client), await rows(db)
                await db.rollback()
                if (await outbox(db), await outages(db)) == before:
                    return World(tasks, before[0], stream, rested, repairs(fleet), before[1])
                await db.rollback()
    finally:
        await engine.dispose()


def repairs(fleet: Fleet) -> list[Repair]:
    """What the handlers have found missing from the stream, in the time of the history."""
    began = time.time() - time.monotonic()
    return [
        Repair(datetime.fromisoformat(when).timestamp() - began, said)
        for handler in fleet.handlers
        for when, said in LOST.findall(handler.said)
    ]


async def outbox(db: AsyncConnection) -> list[Row]:
    return [Row(**row._mapping) for row in (await db.execute(text(OUTBOX))).all()]


async def keep_outages(fleet: Fleet) -> None:
    """Have the database keep each outage of the handlers, which are still to be started."""
    for statement in KEEP_OUTAGES:
        await fleet.query(statement)


async def outages(db: AsyncConnection) -> list[Outage]:
    return [Outage(*row) for row in (await db.execute(text(OUTAGES))).all()]


async def drained(fleet: Fleet) -> bool:
    """Whether the relay takes it that the stream has the whole outbox."""
    states = await fleet.query(DRAINED)
    return bool(states and states[0]["drained"])


async def length(client: Client) -> int:
    """How many events the stream holds."""
    return (await client.jetstream().stream_info(STREAM)).state.messages


async def rows(db: AsyncConnection) -> dict[str, dict[str, Any]]:
    found = (await db.execute(columns(Task))).all()
    tasks = [json.loads(entity_from(Task, row).encoded()) for row in found]
    return {task["id"]: task for task in tasks}


async def events(client: Client) -> list[Told]:
    """All that the stream holds, in its order."""
    jetstream = client.jetstream()
    info = await jetstream.stream_info(STREAM)
    if info.state.messages == 0:
        return []
    subscription = await jetstream.subscribe("events.>", stream=STREAM, ordered_consumer=True)
    found = []
    try:
        while True:
            message = await subscription.next_msg(timeout=20)
            found.append(message)
            if message.metadata.num_pending == 0:
                break
    finally:
        await subscription.unsubscribe()
    return [told(message) for message in found if FOREIGN not in (message.headers or {})]


def told(message: Msg) -> Told:
    headers = message.headers or {}
    return Told(
        sequence=message.metadata.sequence.stream,
        event_id=headers["Nats-Msg-Id"],
        type=headers["ce-type"],
        entity_id=headers["ce-subject"],
        data=message.data.decode(),
        position=int(headers["Fleet-Position"]),
        cause=headers.get("Fleet-Cause"),
    )
