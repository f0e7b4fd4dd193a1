"""Queries of test definitions."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import delete, func
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import Page
from bus.storage import Listing, columns, entity_from, equal
from contracts.health.test_definitions import ListTestDefinitions, TestDefinition
from persistence.health.tables import test_definition

_LIST = Listing(TestDefinition, equal(test_definition, "category", "enabled"))


async def page(db: AsyncConnection, query: ListTestDefinitions) -> Page[TestDefinition]:
    """A page of the test definitions that pass the filters."""
    return await _LIST.page(db, query)


async def by_ids(db: AsyncConnection, ids: Iterable[str]) -> dict[str, TestDefinition]:
    """The test definitions with these ids."""
    statement = columns(TestDefinition).where(test_definition.c.id == func.any(sorted(set(ids))))
    return {row.id: entity_from(TestDefinition, row) for row in await db.execute(statement)}


async def delete_one(db: AsyncConnection, locked: TestDefinition) -> None:
    """Delete a locked test definition."""
    await db.execute(delete(test_definition).where(test_definition.c.id == locked.id))
