"""What the bus writes and reads around the work of a transaction.

The outbox rows are the last thing that a transaction writes, after every read and lock: so of two
transactions of which one saw the other's work, the later has the higher positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, Text, bindparam, func, text
from sqlalchemy.ext.asyncio import AsyncConnection


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


_OPEN = text(
    """
    SELECT clock_timestamp() AS now, r.key, r.fingerprint, r.status, r.reply, r.position
    FROM (SELECT) AS always LEFT JOIN bus.requests r ON r.caller = :caller AND r.key = ANY(:keys)
    """
).bindparams(bindparam("keys", type_=ARRAY(Text)), bindparam("caller", type_=Text))

_CLOCK = func.clock_timestamp().select()

# In the select list the xid comes before the position on purpose: a transaction must have its xid
# before it takes its first position, or the relay could give up a hole whose owner still runs.
_EVENTS = """
    events AS (
        INSERT INTO bus.outbox (
            xid, position, event_id, type, entity_id, data, cause, traceparent, recorded_at
        )
        SELECT pg_current_xact_id(), nextval('bus.outbox_position'), e.event_id, e.type,
               e.entity_id, e.data, e.cause, e.traceparent, clock_timestamp()
        FROM json_to_recordset(CAST(:events AS json)) AS e (
            event_id uuid, type text, entity_id text, data json, cause text, traceparent text
        )
        RETURNING position
    )"""

_REQUESTS = """
    kept AS (
        INSERT INTO bus.requests (caller, key, fingerprint, status, reply, position)
        SELECT :caller, q.key, q.fingerprint, q.status, q.reply, (SELECT max(position) FROM events)
        FROM json_to_recordset(CAST(:replies AS json)) AS q (
            key text, fingerprint text, status smallint, reply text
        )
        ORDER BY q.key
        ON CONFLICT (caller, key) DO NOTHING
        RETURNING key
    )"""

_APPEND = text(
    f"WITH {_EVENTS}, {_REQUESTS} "
    "SELECT (SELECT max(position) FROM events) AS position, ARRAY(SELECT key FROM kept) AS kept"
).bindparams(
    bindparam("events", type_=Text),
    bindparam("replies", type_=Text),
    bindparam("caller", type_=Text),
)

_APPEND_EVENTS = text(
    f"WITH {_EVENTS} SELECT max(position) AS position, CAST('{{}}' AS text[]) AS kept FROM events"
).bindparams(bindparam("events", type_=Text))

_FORGET = text(
    """
    DELETE FROM bus.requests WHERE (caller, key) IN (
        SELECT caller, key FROM bus.requests
        WHERE created_at < clock_timestamp() - make_interval(secs => :retention)
        ORDER BY created_at LIMIT :limit FOR UPDATE SKIP LOCKED
    )
    """
)


async def open_work(db: AsyncConnection, caller: str, keys: Sequence[str]) -> Opening:
    """The time, and what is stored for these keys of this caller."""
    if not keys:
        return Opening((await db.execute(_CLOCK)).scalar_one(), {})
    rows = (await db.execute(_OPEN, {"caller": caller, "keys": list(keys)})).all()
    stored = {
        row.key: StoredReply(row.key, row.fingerprint, row.status, row.reply, row.position)
        for row in rows
        if row.key is not None
    }
    return Opening(rows[0].now, stored)


async def append(db: AsyncConnection, caller: str, events: str, replies: str) -> Any:
    """Insert outbox rows and idempotency rows, each a JSON array, as the transaction's last act.

    Returns ``position``, the highest outbox position, and ``kept``, the keys that were stored: a
    key that is missing there has been stored by another transaction meanwhile.
    """
    if replies == "[]":
        return (await db.execute(_APPEND_EVENTS, {"events": events})).one()
    values = {"caller": caller, "events": events, "replies": replies}
    return (await db.execute(_APPEND, values)).one()


async def forget_requests(db: AsyncConnection, *, retention: float, limit: int) -> int:
    """Delete up to ``limit`` idempotency rows older than ``retention`` seconds."""
    result = await db.execute(_FORGET, {"retention": retention, "limit": limit})
    return int(result.rowcount)
