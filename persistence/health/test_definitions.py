"""Queries of test definitions."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage import Listing, columns, entity_from, equal
from contracts.health.test_definitions import (
    ListTestDefinitions,
    TestDefinition,
    TestDefinitionContents,
)
from persistence.health.tables import test_definition, test_run

Listing(ListTestDefinitions, equal(test_definition, "category", "enabled"))


async def by_ids(db: AsyncConnection, ids: Iterable[str]) -> dict[str, TestDefinition]:
    """The test definitions with these ids."""
    statement = columns(TestDefinition).where(test_definition.c.id == func.any(sorted(set(ids))))
    return {row.id: entity_from(TestDefinition, row) for row in await db.execute(statement)}


async def delete_one(db: AsyncConnection, locked: TestDefinition) -> TestDefinitionContents:
    """Delete a locked test definition; returns what went along."""
    mine = test_run.c.test_definition_id == locked.id
    runs = (await db.execute(select(func.count()).select_from(test_run).where(mine))).scalar_one()
    await db.execute(delete(test_definition).where(test_definition.c.id == locked.id))
    return TestDefinitionContents(runs=runs)
