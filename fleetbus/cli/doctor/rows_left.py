"""What the sweeper still has to remove, for ``fleetbus doctor``."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage.own import deletions as _deletions


async def rows_left(db: AsyncConnection) -> str:
    """How many deletions are under way and what is left of them; nothing where there is none."""
    found = await _deletions.under_way(db)
    if found.oldest is None:
        return ""
    are = "deletion is" if found.number == 1 else "deletions are"
    return (
        f"; {found.number} {are} under way, the first for {found.oldest.total_seconds():.0f} s, "
        f"and about {found.parts:,} rows are left"
    )
