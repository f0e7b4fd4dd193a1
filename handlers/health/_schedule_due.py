"""Due times: told once each, whoever looks, and after a pause only the latest of them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.handling import Decision, Emit, carry_out, periodic
from bus.kit.cron import due_times
from contracts.health.schedules import Schedule, ScheduleDue
from contracts.health.test_definitions import TestDefinition, TestDefinitionDue
from persistence.health import health_sweeping as _health_sweeping


@periodic(every=1.0, limit=200, emits=(TestDefinitionDue,))
async def tell_due_definitions(
    *, db: AsyncConnection, emit: Emit, now: datetime, limit: int
) -> int:
    """Tell which tests are to be run now; returns how many, ``limit`` at most."""
    due = await _health_sweeping.lock_due(db, TestDefinition, now=now, limit=limit)

    decisions = [definition_due(definition, now) for definition in due]
    await carry_out(decisions, db=db, emit=emit)

    return len(decisions)


@periodic(every=1.0, limit=200, emits=(ScheduleDue,))
async def tell_due_schedules(*, db: AsyncConnection, emit: Emit, now: datetime, limit: int) -> int:
    """Tell which checks are to be started now; returns how many, ``limit`` at most."""
    due = await _health_sweeping.lock_due(db, Schedule, now=now, limit=limit)

    decisions = [schedule_due(schedule, now) for schedule in due]
    await carry_out(decisions, db=db, emit=emit)

    return len(decisions)


def definition_due(definition: TestDefinition, now: datetime) -> Decision[TestDefinition]:
    """Due now, and again later."""
    assert definition.schedule is not None
    assert definition.next_due_at is not None

    due_at, following = due_times(definition.schedule, definition.next_due_at, now)
    due = definition.evolve(now, next_due_at=following)

    return Decision(due, TestDefinitionDue(test_definition=due, due_at=due_at))


def schedule_due(schedule: Schedule, now: datetime) -> Decision[Schedule]:
    """Due now, and again later."""
    assert schedule.next_due_at is not None

    due_at, following = due_times(schedule.cron, schedule.next_due_at, now, schedule.time_zone)
    due = schedule.evolve(now, next_due_at=following, last_due_at=due_at)

    return Decision(due, ScheduleDue(schedule=due, due_at=due_at, trigger="cron"))
