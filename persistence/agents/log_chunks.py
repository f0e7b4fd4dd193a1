"""Queries of log chunks."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Integer,
    Uuid,
    bindparam,
    exists,
    func,
    select,
    text,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import Page
from bus.storage import columns, entity_from
from bus.storage import paging as _paging
from bus.storage import sizes as _sizes
from contracts.agents.log_chunks import MAX_JSON_BYTES, ListLogChunks, LogChunk
from persistence.agents.tables import log_chunk

ITEM_BYTES = 512
"""What a chunk takes up beside its content, at most; a name has 200 characters."""

REPLY_BYTES = MAX_JSON_BYTES + ITEM_BYTES
"""What the chunks of one page may take up of a message (1 MiB by default)."""

# The next larger session number, again and again: as many looks into the index as sessions.
_COUNT_SESSIONS = text("""
    WITH RECURSIVE session AS (
        (SELECT session_number FROM agents.log_chunks WHERE agent_id = :agent_id
         ORDER BY session_number LIMIT 1)
        UNION ALL
        SELECT (SELECT chunk.session_number FROM agents.log_chunks AS chunk
                WHERE chunk.agent_id = :agent_id AND chunk.session_number > session.session_number
                ORDER BY chunk.session_number LIMIT 1)
        FROM session WHERE session.session_number IS NOT NULL
    )
    SELECT count(session_number) FROM session
""").bindparams(bindparam("agent_id", type_=Uuid))

_DELETE = text("""
    DELETE FROM agents.log_chunks WHERE (id, created_at) IN (
        SELECT id, created_at FROM agents.log_chunks WHERE agent_id = :agent_id
        ORDER BY created_at, id LIMIT :limit
    )
""").bindparams(bindparam("agent_id", type_=Uuid), bindparam("limit", type_=Integer))


async def page(db: AsyncConnection, query: ListLogChunks) -> Page[LogChunk]:
    """A page of a log, cut where its reply would become too large for one message.

    The sizes are looked at first, so that no more is fetched than is answered.
    """
    where: list[ColumnElement[bool]] = [log_chunk.c.agent_id == query.agent_id]
    if query.session_number is not None:
        where.append(log_chunk.c.session_number == query.session_number)
    places, more = await _places(db, query, where)
    total = await _count(db, where) if query.count == "exact" else None
    if not places:
        return Page[LogChunk](items=[], next_cursor=None, total=total)

    found = await _fetch(db, query.agent_id, places)
    last = places[-1]
    cursor = _paging.encode(query, last.created_at, last.id) if more else None
    return Page[LogChunk](items=found, next_cursor=cursor, total=total)


async def _places(
    db: AsyncConnection, query: ListLogChunks, where: list[ColumnElement[bool]]
) -> tuple[list[Any], bool]:
    """Where the chunks of the page lie, in its order, and whether there are more behind them."""
    created_at, id_ = log_chunk.c.created_at, log_chunk.c.id
    descending = query.order.startswith("-")
    if query.cursor is not None:
        where = [*where, _paging.after(created_at, id_, query, descending=descending)]
    order = (created_at.desc(), id_.desc()) if descending else (created_at, id_)
    # As JSON a character takes up to six bytes: a control character, written \u0000.
    size = func.octet_length(func.to_json(log_chunk.c.content).cast(log_chunk.c.content.type))
    statement = select(created_at, id_, size.label("size")).where(*where).order_by(*order)
    rows = (await db.execute(statement.limit(query.limit + 1))).all()
    fitting: list[Any] = []
    left = min(REPLY_BYTES, _sizes.room_for_page())
    for row in rows[: query.limit]:
        left -= row.size + ITEM_BYTES
        if left < 0 and fitting:
            break
        fitting.append(row)
    return fitting, len(rows) > len(fitting)


async def _fetch(db: AsyncConnection, agent_id: UUID, places: list[Any]) -> list[LogChunk]:
    created_at, id_ = log_chunk.c.created_at, log_chunk.c.id
    wanted = tuple_(created_at, id_).in_([(place.created_at, place.id) for place in places])
    statement = columns(LogChunk).where(log_chunk.c.agent_id == agent_id, wanted)
    found = {row.id: entity_from(LogChunk, row) for row in await db.execute(statement)}
    return [found[place.id] for place in places if place.id in found]


async def _count(db: AsyncConnection, where: list[ColumnElement[bool]]) -> int:
    statement = select(func.count()).select_from(log_chunk).where(*where)
    return int((await db.execute(statement)).scalar_one())


async def count_sessions(db: AsyncConnection, agent_id: UUID) -> int:
    """How many sessions of an agent are in its log."""
    return int((await db.execute(_COUNT_SESSIONS, {"agent_id": agent_id})).scalar_one())


async def remove(db: AsyncConnection, agent_id: UUID, *, limit: int) -> int:
    """Delete the oldest chunks of an agent; returns how many, ``limit`` at most."""
    return int((await db.execute(_DELETE, {"agent_id": agent_id, "limit": limit})).rowcount)


async def has_any(db: AsyncConnection, agent_id: UUID) -> bool:
    """Whether there is anything in the log of an agent."""
    found = await db.execute(select(exists().where(log_chunk.c.agent_id == agent_id)))
    return bool(found.scalar_one())
