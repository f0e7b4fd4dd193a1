"""Queries of test definitions."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage import Listing, equal
from contracts.health.test_definitions import (
    ListTestDefinitions,
    TestDefinition,
    TestDefinitionContents,
)
from persistence.health.tables import test_definition, test_run

Listing(ListTestDefinitions, equal(test_definition, "category", "enabled"))


async def contents(db: AsyncConnection, locked: TestDefinition) -> TestDefinitionContents:
    """What goes along when this test definition is deleted."""
    mine = test_run.c.test_definition_id == locked.id
    runs = (await db.execute(select(func.count()).select_from(test_run).where(mine))).scalar_one()
    return TestDefinitionContents(runs=runs)
