"""What happens to test definitions."""

from datetime import datetime
from typing import Annotated

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import MOST_GONE
from bus.handling import Configured, Emit, handler, values_of, with_values
from bus.storage import add, get_locked_by, lock_or_reserve, remove, remove_in_steps, save
from contracts.health.test_definitions import (
    DeleteTestDefinition,
    TestDefinition,
    TestDefinitionChanged,
    TestDefinitionContents,
    TestDefinitionDeleted,
    TestDefinitionDeletion,
    UpsertTestDefinition,
)
from handlers.health import _test_run_departures
from handlers.health._schedule_first_due import first_due
from persistence.health import test_runs


@handler
async def upsert_test_definition(
    command: UpsertTestDefinition, *, db: AsyncConnection, emit: Emit, now: datetime
) -> TestDefinition:
    due = first_due(command.schedule, now) if command.schedule else None
    known = await lock_or_reserve(db, TestDefinition, id=command.id)
    values = values_of(command) | {"next_due_at": due if command.enabled else None}
    if known and (known.schedule, known.enabled) == (command.schedule, command.enabled):
        values["next_due_at"] = known.next_due_at

    if known is None:
        changed = TestDefinition.first(now=now, **values)
        await add(db, [changed])
    elif updated := with_values(known, now, values):
        changed = updated
        await save(db, [changed])
    else:
        return known
    emit(TestDefinitionChanged(test_definition=changed))

    return changed


@handler
async def delete_test_definition(
    command: DeleteTestDefinition,
    *,
    db: AsyncConnection,
    emit: Emit,
    now: datetime,
    at_once: Annotated[int, Configured("delete_at_once")],
) -> TestDefinitionDeletion:
    definition = await get_locked_by(db, TestDefinition, id=command.id)
    first, number, calls = await test_runs.going(db, definition.id)

    if number + calls <= at_once:
        runs = await test_runs.lock_of(db, definition.id)
        first, number = runs[:MOST_GONE], len(runs)
        await _test_run_departures.remove(runs, db=db, emit=emit, now=now)
        await remove(db, definition)
    else:
        await remove_in_steps(db, definition, parts=number)
    deleted = TestDefinitionContents(runs=number)
    gone = definition.evolve(now)
    emit(TestDefinitionDeleted(test_definition=gone, deleted=deleted, run_ids=first))

    return TestDefinitionDeletion(id=definition.id, deleted=deleted)
