"""Queries of the reconciler: what the stream must hold, what was found, what a person decided."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Final, Literal, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

State = Literal["ok", "repaired", "incomplete", "timeline_conflict"]

UNDER_WAY: Final = "lost events are being published again"
"""The detail of an ``incomplete`` verdict until the repair is done."""

_NAME: Final = "events"


class Verdict(NamedTuple):
    """What the last comparison of stream and outbox found.

    ``ok``: nothing was missing. ``repaired``: all that was missing was published again.
    ``incomplete``: some of it was not yet, and is tried again before anybody who takes over
    publishes anything else. ``timeline_conflict``: the stream
    holds what this database does not know, and nothing is published until a person decides.
    """

    state: State
    checked_at: datetime
    checked: int
    """Events of the outbox that were looked for."""
    missing: int
    repaired: int
    detail: str


class Mark(NamedTuple):
    """Up to where the stream was found whole, and what it looked like then."""

    created_at: datetime
    first_sequence: int
    deleted: int
    sequence: int
    event_id: str
    """Of the event with that sequence: another stream has another one there."""
    cursor: int
    holes: tuple[tuple[int, int], ...]


class Extent(NamedTuple):
    """What the outbox holds: its first row, and the highest position that was ever taken."""

    first: int | None
    first_recorded_at: datetime | None
    taken: int


_LAST_VERDICT = text("""
    SELECT state, checked_at, checked, missing, repaired, detail
    FROM bus.reconciliation WHERE name = :name
""")

_SAVE_VERDICT = text("""
    INSERT INTO bus.reconciliation AS found
        (name, state, checked_at, checked, missing, repaired, detail, mark)
    VALUES (:name, :state, clock_timestamp(), :checked, :missing, :repaired, :detail,
            CAST(:mark AS jsonb))
    ON CONFLICT (name) DO UPDATE SET
        state = excluded.state, checked_at = excluded.checked_at, checked = excluded.checked,
        missing = excluded.missing, repaired = excluded.repaired, detail = excluded.detail,
        mark = excluded.mark
""")

_MARK = text("SELECT CAST(mark AS text) FROM bus.reconciliation WHERE name = :name")

_EXTENT = text("""
    SELECT oldest.position, oldest.recorded_at, CASE WHEN taken.is_called THEN taken.last_value
                                                     ELSE taken.last_value - 1 END
    FROM bus.outbox_position AS taken
    LEFT JOIN (SELECT position, recorded_at FROM bus.outbox ORDER BY position LIMIT 1) AS oldest
        ON true
""")

_POSITIONS = text("""
    SELECT position FROM bus.outbox
    WHERE position BETWEEN :first AND :last
      AND (CAST(:since AS timestamptz) IS NULL OR recorded_at >= :since)
    ORDER BY position LIMIT :limit
""")


async def last_verdict(db: AsyncConnection) -> Verdict | None:
    """What the last comparison found; None before the first."""
    row = (await db.execute(_LAST_VERDICT, {"name": _NAME})).one_or_none()
    return Verdict(*row) if row else None


async def save_verdict(
    db: AsyncConnection,
    state: State,
    *,
    checked: int = 0,
    missing: int = 0,
    repaired: int = 0,
    detail: str = "",
    mark: Mark | None = None,
) -> None:
    """Note what was found, now; without a mark the next comparison begins at the beginning."""
    values = {
        "name": _NAME,
        "state": state,
        "checked": checked,
        "missing": missing,
        "repaired": repaired,
        "detail": detail,
        "mark": json.dumps([mark.created_at.isoformat(), *mark[1:]]) if mark else None,
    }
    await db.execute(_SAVE_VERDICT, values)


async def load_mark(db: AsyncConnection) -> Mark | None:
    """Up to where the stream was found whole, if it was."""
    found = await db.scalar(_MARK, {"name": _NAME})
    if found is None:
        return None
    mark = Mark(*json.loads(found))
    return mark._replace(
        created_at=datetime.fromisoformat(str(mark.created_at)),
        holes=tuple((first, last) for first, last in mark.holes),
    )


async def extent(db: AsyncConnection) -> Extent:
    """What the outbox holds; at the same cost however much that is."""
    return Extent(*(await db.execute(_EXTENT)).one())


async def positions_between(
    db: AsyncConnection, first: int, last: int, *, since: datetime | None, limit: int
) -> list[int]:
    """The first ``limit`` positions in a range, of events recorded at ``since`` or later."""
    values = {"first": first, "last": last, "since": since, "limit": limit}
    return [position for (position,) in await db.execute(_POSITIONS, values)]
