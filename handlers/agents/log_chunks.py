"""What happens to log chunks."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import Page
from bus.handling import Decision, decider, handler, query
from bus.kit.id_series import following_id
from bus.storage import entities as _entities
from contracts.agents.agents import Agent
from contracts.agents.log_chunks import (
    AppendLogChunk,
    AppendManyLogChunks,
    CountLogSessions,
    DeleteLogChunks,
    ListLogChunks,
    LogChunk,
    LogDeletion,
    NewLogChunk,
    NewLogChunks,
    SessionCount,
)
from handlers.agents._agent_rules import require_live
from persistence.agents import log_chunks

DELETED_AT_ONCE = 10_000
"""Chunks that one request deletes, at most."""


@decider
def append_log_chunk(
    command: AppendLogChunk, agent: Agent | None, *, new_id: UUID, now: datetime
) -> Decision[LogChunk]:
    _require_live(agent, command.incarnation)
    chunk = _chunk(command, agent, command.content, id_=new_id, now=now)

    return Decision(chunk, reply=NewLogChunk(id=chunk.id, created_at=now))


@handler
async def append_many_log_chunks(
    command: AppendManyLogChunks, *, db: AsyncConnection, new_id: UUID, now: datetime
) -> NewLogChunks:
    agent = (await _entities.load(db, Agent, [command.agent_id])).get(command.agent_id)
    _require_live(agent, command.incarnation)
    chunks = [
        _chunk(command, agent, item.content, id_=following_id(new_id, number), now=now)
        for number, item in enumerate(command.items)
    ]

    await _entities.add(db, chunks)

    return NewLogChunks(items=[NewLogChunk(id=chunk.id, created_at=now) for chunk in chunks])


@query
async def list_log_chunks(query: ListLogChunks, *, db: AsyncConnection) -> Page[LogChunk]:
    return await log_chunks.page(db, query)


@query
async def count_log_sessions(query: CountLogSessions, *, db: AsyncConnection) -> SessionCount:
    sessions = await log_chunks.count_sessions(db, query.agent_id)

    return SessionCount(agent_id=query.agent_id, sessions=sessions)


@handler
async def delete_log_chunks(command: DeleteLogChunks, *, db: AsyncConnection) -> LogDeletion:
    deleted = await log_chunks.remove(db, command.agent_id, limit=DELETED_AT_ONCE)
    remaining = deleted == DELETED_AT_ONCE and await log_chunks.has_any(db, command.agent_id)

    return LogDeletion(deleted=deleted, remaining=remaining)


def _require_live(agent: Agent | None, incarnation: int | None) -> None:
    """Refuse what is said in the name of an agent that has ended; of no agent anything is kept."""
    if agent is not None:
        require_live(agent, incarnation, "append")


def _chunk(
    command: AppendLogChunk | AppendManyLogChunks,
    agent: Agent | None,
    content: str,
    *,
    id_: UUID,
    now: datetime,
) -> LogChunk:
    return LogChunk.first(
        id=id_,
        now=now,
        agent_id=command.agent_id,
        agent_name=command.agent_name or (agent.name if agent else None),
        session_number=command.session_number,
        content=content,
    )
