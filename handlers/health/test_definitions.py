"""What happens to test definitions."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import Page
from bus.handling import Emit, handler, query, values_of, with_values
from bus.storage import add, save
from contracts.health.test_definitions import (
    DeleteTestDefinition,
    GetTestDefinition,
    ListTestDefinitions,
    TestDefinition,
    TestDefinitionChanged,
    TestDefinitionDeleted,
    TestDefinitionDeletion,
    UpsertTestDefinition,
)
from handlers.health._first_due import first_due
from persistence.health import test_definitions
from persistence.health.keys import get_locked_by, lock_or_reserve


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
    else:
        changed = with_values(known, now, values)
        if changed is known:
            return known
        await save(db, [changed])
    emit(TestDefinitionChanged(test_definition=changed))

    return changed


@query
def get_test_definition(
    query: GetTestDefinition,  # noqa: ARG001  the id has been used to find it
    test_definition: TestDefinition,
) -> TestDefinition:
    return test_definition


@query
async def list_test_definitions(
    query: ListTestDefinitions, *, db: AsyncConnection
) -> Page[TestDefinition]:
    return await test_definitions.page(db, query)


@handler
async def delete_test_definition(
    command: DeleteTestDefinition, *, db: AsyncConnection, emit: Emit, now: datetime
) -> TestDefinitionDeletion:
    definition = await get_locked_by(db, TestDefinition, id=command.id)

    deleted = await test_definitions.delete_one(db, definition)
    emit(TestDefinitionDeleted(test_definition=definition.evolve(now), deleted=deleted))

    return TestDefinitionDeletion(id=definition.id, deleted=deleted)
