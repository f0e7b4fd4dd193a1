"""Queries about messages in the stream that are not ours, and about what was removed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage.own.outbox import OutboxRow

_NAME: Final = "events"


class Removed(NamedTuple):
    """How many messages were removed from the stream because they were not ours."""

    messages: int
    last_at: datetime
    last_subject: str
    last_sequence: int


_ROWS_AT = text("""
    SELECT position, CAST(CAST(xid AS text) AS bigint), CAST(event_id AS text), type, entity_id,
           CASE WHEN :bodies THEN CAST(data AS text) END, cause, traceparent, recorded_at
    FROM bus.outbox WHERE position = ANY (CAST(:positions AS bigint[]))
""")

# The mark tells how many messages were gone when the stream was found whole: these are no loss.
_NOTE = text("""
    WITH shifted AS (
        UPDATE bus.reconciliation
        SET mark = jsonb_set(mark, '{2}', to_jsonb(CAST(mark ->> 2 AS bigint) + :gone))
        WHERE name = :name AND mark IS NOT NULL
    )
    INSERT INTO bus.foreign_messages AS known
        (name, removed, last_removed_at, last_subject, last_sequence)
    VALUES (:name, :removed, clock_timestamp(), :subject, :sequence)
    ON CONFLICT (name) DO UPDATE SET
        removed = known.removed + excluded.removed, last_removed_at = excluded.last_removed_at,
        last_subject = excluded.last_subject, last_sequence = excluded.last_sequence
""")

_REMOVED = text("""
    SELECT removed, last_removed_at, last_subject, last_sequence
    FROM bus.foreign_messages WHERE name = :name
""")


async def rows_at(
    db: AsyncConnection, positions: Sequence[int], *, bodies: bool
) -> dict[int, OutboxRow]:
    """The events at these positions, where there are any."""
    values = {"positions": list(positions), "bodies": bodies}
    rows = (await db.execute(_ROWS_AT, values)).all()
    return {row[0]: OutboxRow(*row) for row in rows}


async def note_removed(
    db: AsyncConnection, *, removed: int, gone: int, subject: str, sequence: int
) -> None:
    """Count what was removed; ``gone`` is what is not there any more, whoever removed it."""
    values = {
        "name": _NAME,
        "removed": removed,
        "gone": gone,
        "subject": subject,
        "sequence": sequence,
    }
    await db.execute(_NOTE, values)


async def removed(db: AsyncConnection) -> Removed | None:
    """What was removed up to now; None if nothing ever was."""
    row = (await db.execute(_REMOVED, {"name": _NAME})).one_or_none()
    return Removed(*row) if row else None
