"""What happens to test definitions."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.handling import Emit, described, handler, made, replaced
from bus.storage import add, get_locked_by, lock_or_reserve, remove, save
from contracts.health.test_definitions import (
    DeleteTestDefinition,
    TestDefinition,
    TestDefinitionChanged,
    TestDefinitionDeleted,
    TestDefinitionDeletion,
    UpsertTestDefinition,
)
from handlers.health._first_due import first_due
from persistence.health import test_definitions


@handler
async def upsert_test_definition(
    command: UpsertTestDefinition, *, db: AsyncConnection, emit: Emit, now: datetime
) -> TestDefinition:
    due = first_due(command.schedule, now) if command.schedule else None
    known = await lock_or_reserve(db, TestDefinition, id=command.id)
    values = described(command) | {"next_due_at": due if command.enabled else None}
    if known and (known.schedule, known.enabled) == (command.schedule, command.enabled):
        values["next_due_at"] = known.next_due_at

    if known is None:
        changed = made(TestDefinition, now, **values)
        await add(db, [changed])
    else:
        changed = replaced(known, now, values)
        if changed is known:
            return known
        await save(db, [changed])
    emit(TestDefinitionChanged(test_definition=changed))

    return changed


@handler
async def delete_test_definition(
    command: DeleteTestDefinition, *, db: AsyncConnection, emit: Emit, now: datetime
) -> TestDefinitionDeletion:
    definition = await get_locked_by(db, TestDefinition, id=command.id)

    deleted = await test_definitions.contents(db, definition)
    await remove(db, definition)
    emit(TestDefinitionDeleted(test_definition=definition.evolve(now), deleted=deleted))

    return TestDefinitionDeletion(id=definition.id, deleted=deleted)
