"""Queries of schedules."""

from __future__ import annotations

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage import Listing, equal
from contracts.health.schedules import ListSchedules, Schedule
from persistence.health.tables import schedule

Listing(ListSchedules, equal(schedule, "enabled"))


async def delete_one(db: AsyncConnection, locked: Schedule) -> None:
    """Delete a locked schedule."""
    await db.execute(delete(schedule).where(schedule.c.id == locked.id))
