"""What happens to log chunks."""

from sqlalchemy.ext.asyncio import AsyncConnection

from contracts._declare import Page
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
from handlers._shapes import Emit, handler, query


@handler
async def append_log_chunk(
    command: AppendLogChunk, *, db: AsyncConnection, emit: Emit
) -> NewLogChunk:
    raise NotImplementedError


@handler
async def append_many_log_chunks(
    command: AppendManyLogChunks, *, db: AsyncConnection, emit: Emit
) -> NewLogChunks:
    raise NotImplementedError


@handler
async def delete_log_chunks(
    command: DeleteLogChunks, *, db: AsyncConnection, emit: Emit
) -> LogDeletion:
    raise NotImplementedError


@query
async def list_log_chunks(query: ListLogChunks, *, db: AsyncConnection) -> Page[LogChunk]:
    raise NotImplementedError


@query
async def count_log_sessions(query: CountLogSessions, *, db: AsyncConnection) -> SessionCount:
    raise NotImplementedError
