"""What the bus writes and reads around the work of a transaction.

The outbox rows are the last thing that a transaction writes, after every read and lock: so of two
transactions of which one saw the other's work, the later has the higher positions. What else is
left to write may travel in the same statement, before them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

import pydantic_core
from asyncpg import Record
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.entity import Entity
from bus.storage.driver import Compiled, execute, fetch, numbered, part
from bus.storage.entities import Changes, Form, entity_from, statements


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
    found: dict[Any, Any]
    """The entities that were asked for by their ids."""


class KeptReply(NamedTuple):
    """A reply that is to be stored with its key."""

    key: str
    fingerprint: str
    status: int
    reply: str


class Written(NamedTuple):
    """What ``write`` did: the highest position, how many keys were stored, what was found."""

    position: int | None
    kept: int
    found: bool = False
    """Whether there was what the conditions look for; then neither events nor keys were stored."""


_OPEN = numbered(
    """
    SELECT clock_timestamp() AS bus_now, CAST(json_agg(r) AS text) AS bus_stored
    FROM bus.requests r
    WHERE r.caller = CAST(:caller AS text) AND r.key = ANY (CAST(:keys AS text[]))
    """
)

# One round trip for all that a batch begins with. The clock is read when the locks are held.
_OPEN_WITH = """
    WITH found AS MATERIALIZED ({rows})
    SELECT clock_timestamp() AS bus_now, {stored} AS bus_stored, found.*
    FROM (SELECT) AS always LEFT JOIN found ON true
"""

_STORED = """
    (SELECT CAST(json_agg(r) AS text) FROM bus.requests r
     WHERE r.caller = CAST(:caller AS text) AND r.key = ANY (CAST(:keys AS text[])))
"""

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
        FROM json_to_recordset(CAST(:events AS json)) AS e (
            event_id uuid, type text, entity_id text, data json, cause text, traceparent text
        )
        {only_if}
        RETURNING position
    )"""

_AUDITED = """
    audited AS (
        INSERT INTO bus.audit (at, id, actor, kind, entity, entity_id, ip, detail)
        SELECT clock_timestamp(), a.id, a.actor, a.kind, a.entity, a.entity_id, a.ip, a.detail
        FROM json_to_recordset(CAST(:audited AS json)) AS a (
            id uuid, actor text, kind text, entity text, entity_id text, ip inet, detail jsonb
        )
        {only_if}
    )"""

_REQUESTS = """
    kept AS (
        INSERT INTO bus.requests (caller, key, fingerprint, status, reply, position)
        SELECT CAST(:caller AS text), q.key, q.fingerprint, q.status, q.reply, {position}
        FROM unnest(
            CAST(:keys AS text[]), CAST(:fingerprints AS text[]),
            CAST(:statuses AS smallint[]), CAST(:replies AS text[])
        ) AS q (key, fingerprint, status, reply)
        {only_if}
        ORDER BY q.key
        ON CONFLICT (caller, key) DO NOTHING
        RETURNING key
    )"""

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


async def open_with(
    db: AsyncConnection,
    caller: str,
    keys: Sequence[str],
    entity: type[Entity],
    ids: Iterable[Any],
    *,
    lock: bool,
) -> Opening:
    """The same, and the entities with these ids; locked, if so, in the order of their ids.

    Without keys the table of the replies is not touched, whoever holds a lock on it.
    """
    values = {"caller": caller, "keys": list(keys), "ids": list(ids)}
    rows = await fetch(db, _opening(entity, lock=lock, keyed=bool(keys)), values)
    found = {row["id"]: entity_from(entity, row) for row in rows if row["id"] is not None}
    return Opening(rows[-1]["bus_now"], _stored(rows[0]), found)


async def write(
    db: AsyncConnection,
    caller: str,
    *,
    changes: Changes | None = None,
    events: Sequence[bytes] = (),
    audited: Sequence[bytes] = (),
    replies: Sequence[KeptReply] = (),
    unless: Mapping[Compiled, Sequence[Any]] | None = None,
) -> Written:
    """Write changes, outbox rows and idempotency rows, as the transaction's last act.

    Fewer keys stored than were given: the others have been stored by another transaction
    meanwhile. ``unless`` has conditions, queries with a parameter ``ids``, and their ids: where
    one of them finds a row, the changes alone are written. They see what the transaction had
    written before.
    """
    unless = unless or {}
    statement = _writing(
        changes.form() if changes else None,
        bool(events),
        bool(audited),
        bool(replies),
        tuple(unless),
    )
    values: dict[str, Any] = {"caller": caller}
    if changes:
        values |= changes.values()
    if events:
        values["events"] = (b"[" + b",".join(events) + b"]").decode()
    if audited:
        values["audited"] = (b"[" + b",".join(audited) + b"]").decode()
    if replies:
        columns = map(list, zip(*replies, strict=True))
        values |= zip(("keys", "fingerprints", "statuses", "replies"), columns, strict=True)
    values |= {f"ids_{number}": list(ids) for number, ids in enumerate(unless.values())}
    (row,) = await fetch(db, statement, values)
    return Written(row["position"], row["kept"], row["found"])


async def forget_requests(db: AsyncConnection, *, retention: float, limit: int) -> int:
    """Delete up to ``limit`` idempotency rows older than ``retention`` seconds."""
    return await execute(db, _FORGET, {"retention": retention, "limit": limit})


def _stored(row: Record) -> dict[str, StoredReply]:
    if row["bus_stored"] is None:
        return {}
    found = pydantic_core.from_json(row["bus_stored"])
    names = ("key", "fingerprint", "status", "reply", "position")
    return {item["key"]: StoredReply(**{name: item[name] for name in names}) for item in found}


@cache
def _opening(entity: type[Entity], *, lock: bool, keyed: bool) -> Compiled:
    known = statements(entity)
    rows = part(known.lock if lock else known.read)
    return numbered(_OPEN_WITH.format(rows=rows, stored=_STORED if keyed else "NULL"))


@cache
def _writing(
    changed: Form | None,
    told: bool,
    audited: bool,
    keyed: bool,
    conditions: tuple[Compiled, ...],
) -> Compiled:
    """The statement that writes all this. Each part waits for the one before it."""
    changes = changed.parts() if changed else {}
    parts = [*changes.values()]
    only_if = [f"(SELECT count(*) FROM {name}) >= 0" for name in changes]
    found = [
        f"EXISTS ({part(condition).replace(':ids', f':ids_{number}')})"
        for number, condition in enumerate(conditions)
    ]
    if found:
        parts.append(f"condition AS MATERIALIZED (SELECT {' OR '.join(found)} AS holds)")
        only_if.append("NOT (SELECT holds FROM condition)")
    where = f"WHERE {' AND '.join(only_if)}" if only_if else ""
    position = "(SELECT max(position) FROM events)" if told else "CAST(NULL AS bigint)"
    if audited:
        parts.append(_AUDITED.format(only_if=where))
    if told:
        parts.append(_EVENTS.format(only_if=where))
    if keyed:
        parts.append(_REQUESTS.format(only_if=where, position=position))
    return numbered(
        f"WITH {', '.join(parts)} SELECT {position} AS position, "
        f"{'(SELECT count(*) FROM kept)' if keyed else '0'} AS kept, "
        f"{'(SELECT holds FROM condition)' if found else 'false'} AS found"
    )
