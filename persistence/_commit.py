"""What the bus writes and reads around the work of a transaction.

The outbox rows are the last thing that a transaction writes, after every read and lock: so of two
transactions of which one saw the other's work, the later has the higher positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pydantic_core
from asyncpg import Record
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts._declare import Entity
from persistence._driver import Compiled, execute, fetch
from persistence._entities import entity_from, statements


@dataclass(frozen=True)
class StoredReply:
    """The reply that an idempotency key already has."""

    key: str
    fingerprint: str
    status: int
    reply: str
    position: int | None


@dataclass(frozen=True)
class Opening:
    """The database's clock, and the replies that are stored for the keys asked for."""

    now: datetime
    stored: dict[str, StoredReply]
    locked: dict[Any, Any]
    """The entities that were asked for by their ids, locked."""


_OPEN = Compiled(
    """
    SELECT clock_timestamp() AS bus_now, CAST(json_agg(r) AS text) AS bus_stored
    FROM bus.requests r WHERE r.caller = CAST($1 AS text) AND r.key = ANY (CAST($2 AS text[]))
    """,
    ("caller", "keys"),
)

_CLOCK = Compiled("SELECT clock_timestamp() AS bus_now, NULL AS bus_stored", ())

# In the select list the xid comes before the position on purpose: a transaction must have its xid
# before it takes its first position, or the relay could give up a hole whose owner still runs.
_EVENTS = """
    events AS (
        INSERT INTO bus.outbox (
            xid, position, event_id, type, entity_id, data, cause, traceparent, recorded_at
        )
        SELECT pg_current_xact_id(), nextval('bus.outbox_position'), e.event_id, e.type,
               e.entity_id, e.data, e.cause, e.traceparent, clock_timestamp()
        FROM json_to_recordset(CAST($1 AS json)) AS e (
            event_id uuid, type text, entity_id text, data json, cause text, traceparent text
        )
        RETURNING position
    )"""

_REQUESTS = """
    kept AS (
        INSERT INTO bus.requests (caller, key, fingerprint, status, reply, position)
        SELECT CAST($2 AS text), q.key, q.fingerprint, q.status, q.reply,
               (SELECT max(position) FROM events)
        FROM json_to_recordset(CAST($3 AS json)) AS q (
            key text, fingerprint text, status smallint, reply text
        )
        ORDER BY q.key
        ON CONFLICT (caller, key) DO NOTHING
        RETURNING key
    )"""

_APPEND = Compiled(
    f"WITH {_EVENTS}, {_REQUESTS} "
    "SELECT (SELECT max(position) FROM events) AS position, (SELECT count(*) FROM kept) AS kept",
    ("events", "caller", "replies"),
)

_APPEND_EVENTS = Compiled(
    f"WITH {_EVENTS} SELECT max(position) AS position, 0 AS kept FROM events", ("events",)
)

_FORGET = Compiled(
    """
    DELETE FROM bus.requests WHERE (caller, key) IN (
        SELECT caller, key FROM bus.requests
        WHERE created_at < clock_timestamp() - make_interval(secs => $1)
        ORDER BY created_at LIMIT CAST($2 AS bigint) FOR UPDATE SKIP LOCKED
    )
    """,
    ("retention", "limit"),
)


async def open_work(db: AsyncConnection, caller: str, keys: Sequence[str]) -> Opening:
    """The time, and what is stored for these keys of this caller."""
    values = {"caller": caller, "keys": list(keys)}
    rows = await fetch(db, _OPEN if keys else _CLOCK, values)
    return Opening(rows[0]["bus_now"], _stored(rows[0]), {})


async def open_and_lock(
    db: AsyncConnection, caller: str, keys: Sequence[str], entity: type[Entity], ids: Iterable[Any]
) -> Opening:
    """The same, and the entities with these ids, locked in the order of their ids."""
    values = {"caller": caller, "keys": list(keys), "ids": list(ids)}
    rows = await fetch(db, statements(entity).open, values)
    locked = {row["id"]: entity_from(entity, row) for row in rows if row["id"] is not None}
    return Opening(rows[-1]["bus_now"], _stored(rows[0]), locked)


async def append(
    db: AsyncConnection, caller: str, events: str, replies: str
) -> tuple[int | None, int]:
    """Insert outbox rows and idempotency rows, each a JSON array, as the transaction's last act.

    Returns the highest outbox position, and how many of the keys were stored: one that was not
    has been stored by another transaction meanwhile.
    """
    statement = _APPEND_EVENTS if replies == "[]" else _APPEND
    values = {"caller": caller, "events": events, "replies": replies}
    (row,) = await fetch(db, statement, values)
    return row["position"], row["kept"]


async def forget_requests(db: AsyncConnection, *, retention: float, limit: int) -> int:
    """Delete up to ``limit`` idempotency rows older than ``retention`` seconds."""
    return await execute(db, _FORGET, {"retention": retention, "limit": limit})


def _stored(row: Record) -> dict[str, StoredReply]:
    if row["bus_stored"] is None:
        return {}
    found = pydantic_core.from_json(row["bus_stored"])
    names = ("key", "fingerprint", "status", "reply", "position")
    return {item["key"]: StoredReply(**{name: item[name] for name in names}) for item in found}
