"""What happens to schedules."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.handling import Emit, handler, query, values_of, with_values
from bus.storage import add, get_by, get_locked_by, lock_or_reserve, remove, save
from contracts.health.schedules import (
    DeleteSchedule,
    GetSchedule,
    Schedule,
    ScheduleChanged,
    ScheduleDeleted,
    ScheduleDeletion,
    ScheduleDue,
    TriggerSchedule,
    UpsertSchedule,
)
from handlers.health._schedule_first_due import first_due


@handler
async def upsert_schedule(
    command: UpsertSchedule, *, db: AsyncConnection, emit: Emit, new_id: UUID, now: datetime
) -> Schedule:
    due = first_due(command.cron, now, command.time_zone)
    known = await lock_or_reserve(db, Schedule, name=command.name)
    values = values_of(command) | {"next_due_at": due if command.enabled else None}
    if known and _times(known) == _times(command):
        values["next_due_at"] = known.next_due_at

    if known is None:
        changed = Schedule.first(id=new_id, now=now, **values, last_due_at=None)
        await add(db, [changed])
    elif updated := with_values(known, now, values):
        changed = updated
        await save(db, [changed])
    else:
        return known
    emit(ScheduleChanged(schedule=changed))

    return changed


@query
async def get_schedule(query: GetSchedule, *, db: AsyncConnection) -> Schedule:
    return await get_by(db, Schedule, name=query.name)


@handler
async def delete_schedule(
    command: DeleteSchedule, *, db: AsyncConnection, emit: Emit, now: datetime
) -> ScheduleDeletion:
    schedule = await get_locked_by(db, Schedule, name=command.name)

    await remove(db, schedule)
    emit(ScheduleDeleted(schedule=schedule.evolve(now)))

    return ScheduleDeletion(id=schedule.id, name=schedule.name)


@handler
async def trigger_schedule(
    command: TriggerSchedule, *, db: AsyncConnection, emit: Emit, now: datetime
) -> Schedule:
    schedule = await get_locked_by(db, Schedule, name=command.name)

    triggered = schedule.evolve(now, last_due_at=now)
    await save(db, [triggered])
    emit(ScheduleDue(schedule=triggered, due_at=now, trigger="on_demand"))

    return triggered


def _times(schedule: Schedule | UpsertSchedule) -> tuple[str, str, bool]:
    """What its due times follow from: as long as it stays they stay."""
    return schedule.cron, schedule.time_zone, schedule.enabled
