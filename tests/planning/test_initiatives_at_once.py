"""Initiatives that are created at the same time, with the projects that they are about."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import InvalidReference
from bus.kit.ids import uuid7
from contracts.planning.initiatives import CreateInitiative, Initiative
from contracts.planning.projects import CreateProject
from fleetbus.client import Bus
from tests.counting import Counted
from tests.kit.outbox import Outbox

Statements = Callable[[], AbstractContextManager[Counted]]

ABOUT = """
    SELECT project_id FROM planning.initiative_projects WHERE initiative_id = :id
    ORDER BY project_id
"""


async def test_projects_cost_no_statement(
    bus: Bus, db: AsyncConnection, statements: Statements
) -> None:
    ids = [
        (await bus.call(CreateProject(name=name, url=f"https://example.org/{name}"))).id
        for name in ("one", "two")
    ]

    with statements() as counted:
        made = await bus.call(CreateInitiative(name="a", project_ids=ids))

    assert counted.total == 2, "the clock, and all that is written"
    assert (await db.execute(text(ABOUT), {"id": made.id})).scalars().all() == ids


async def test_one_of_a_project_that_there_is_not_keeps_no_other_from_being_made(
    bus: Bus, db: AsyncConnection, outbox: Outbox
) -> None:
    known = (await bus.call(CreateProject(name="one", url="https://example.org/one"))).id
    abouts = [[], [known], [known, uuid7()], [known], []]

    made = await asyncio.gather(
        *(bus.call(CreateInitiative(name="a", project_ids=about)) for about in abouts),
        return_exceptions=True,
    )

    refused = made.pop(2)
    assert isinstance(refused, InvalidReference)
    assert (refused.field, refused.entity) == ("project_ids", "project")
    found = []
    for initiative in made:
        assert isinstance(initiative, Initiative)
        found.append((await db.execute(text(ABOUT), {"id": initiative.id})).scalars().all())
    assert found == [[], [known], [known], []]
    assert (await outbox.types()).count("initiative.created") == 4
