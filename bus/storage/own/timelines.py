"""Timelines: where a database that went back in time goes on, as a person decided."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_ACCEPTED = text("""
    SELECT coalesce(max(stream_sequence), 0) FROM bus.timelines
    WHERE stream_created_at = :created_at
""")

# Waits for whoever has taken positions and not committed, and keeps others from taking any.
_HOLD_POSITIONS = text("LOCK TABLE bus.outbox IN SHARE ROW EXCLUSIVE MODE")

_LOCK_TIMEOUT = text("SET LOCAL lock_timeout = '10s'")

_MOVE = text("""
    WITH moved AS MATERIALIZED (
        SELECT old, :base + number AS new
        FROM unnest(CAST(:positions AS bigint[])) WITH ORDINALITY AS listed(old, number)
    ), replies AS (
        UPDATE bus.requests AS reply SET position = moved.new
        FROM moved WHERE reply.position = moved.old
    )
    UPDATE bus.outbox AS event SET position = moved.new FROM moved WHERE event.position = moved.old
""")

_CONTINUE_AFTER = text("""
    SELECT setval('bus.outbox_position',
                  greatest(:position, (SELECT last_value FROM bus.outbox_position)))
""")

_ACCEPT = text("""
    INSERT INTO bus.timelines (stream_created_at, stream_sequence, position)
    VALUES (:created_at, :sequence, :position)
    ON CONFLICT (stream_created_at, stream_sequence) DO UPDATE SET position = excluded.position
""")


async def accepted_sequence(db: AsyncConnection, created_at: datetime) -> int:
    """The stream sequence after which this database's timeline is the valid one; 0: all of it."""
    return int(await db.scalar(_ACCEPTED, {"created_at": created_at}) or 0)


async def hold_positions(db: AsyncConnection) -> None:
    """Let nobody record events until this transaction ends; who is about to has done so."""
    await db.execute(_LOCK_TIMEOUT)
    await db.execute(_HOLD_POSITIONS)


async def move(db: AsyncConnection, positions: Sequence[int], base: int) -> None:
    """Give these events, and the replies that name them, the positions that follow ``base``."""
    await db.execute(_MOVE, {"positions": list(positions), "base": base})


async def accept(
    db: AsyncConnection, created_at: datetime, *, sequence: int, position: int
) -> None:
    """Make this database's timeline valid after a stream sequence, and go on after a position."""
    await db.execute(_CONTINUE_AFTER, {"position": position})
    values = {"created_at": created_at, "sequence": sequence, "position": position}
    await db.execute(_ACCEPT, values)
