"""Plans that were there before: what they have ready is known after the upgrade."""

import random
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.kit.ids import uuid7
from contracts.planning.tasks import ClaimTasks
from fleetbus.client import connect
from fleetbus.server import migrate
from fleetbus.server.config import Settings
from fleetbus.server.service import Service
from tests.planning._histories import CATEGORIES, Plan, Seen

INITIATIVE = "INSERT INTO planning.initiatives (id, name, status) VALUES (:id, 'i', :status)"
PHASE = """
    INSERT INTO planning.phases (id, initiative_id, name, status, position)
    VALUES (:id, :initiative, 'p', :status, 0)
"""
TASK = """
    INSERT INTO planning.tasks
        (id, name, status, category, initiative_id, phase_id, parent_task_id)
    VALUES (:id, 't', :status, :category, :initiative, :phase, :parent)
"""
EDGE = """
    INSERT INTO planning.task_dependencies (id, task_id, depends_on_task_id)
    VALUES (uuidv7(), :one, :other)
"""
STATUSES = ["pending"] * 5 + ["completed"] * 3 + ["in_progress", "blocked"]


async def fill(db: AsyncConnection) -> list[UUID]:
    """Initiatives and phases in all states, with trees of tasks that wait for each other."""
    chance = random.Random(7)
    initiatives = []

    async def add(statement: str, **values: Any) -> UUID:
        values["id"] = uuid7()
        await db.execute(text(statement), values)
        id_: UUID = values["id"]
        return id_

    for status in ("active", "active", "active", "pending_review", "completed", "archived"):
        initiative = await add(INITIATIVE, status=status)
        initiatives.append(initiative)
        states = ("in_progress", "in_progress", "pending", "approved", "blocked", "completed")
        phases = [await add(PHASE, initiative=initiative, status=state) for state in states]
        tasks: list[UUID] = []
        for _ in range(60):
            values = {
                "status": chance.choice(STATUSES),
                "category": chance.choice(CATEGORIES),
                "initiative": initiative,
                "phase": chance.choice([None, None, *phases]),
                "parent": chance.choice([None, *tasks]),
            }
            tasks.append(await add(TASK, **values))
        for _ in range(40):
            one, other = sorted(chance.sample(range(len(tasks)), 2))
            edge = {"one": tasks[other], "other": tasks[one]}
            await db.execute(text(f"{EDGE} ON CONFLICT DO NOTHING"), edge)
    return initiatives


def stored(seen: Seen) -> set[UUID]:
    return {
        id_
        for id_, task in seen.tasks.items()
        if task.status == "pending" and not task.held and task.underway
    }


class TestUpgrade:
    async def test_what_was_there_is_ready_or_not(
        self, database_url: str, db: AsyncConnection, settings: Settings, nats_url: str
    ) -> None:
        await migrate.downgrade(database_url, "0006")
        initiatives = await fill(db)

        for _ in range(2):
            await migrate.upgrade(database_url)
            async with connect(nats_url) as bus:
                seen = await Plan(bus, db, initiatives).see()
            ready = set(seen.ready())
            assert len(ready) > 10
            assert stored(seen) == ready
            for id_, task in seen.tasks.items():
                assert task.in_phase_id == seen.phase_of(id_)
            await migrate.downgrade(database_url, "0006")

        await migrate.upgrade(database_url)
        service = Service(settings)
        await service.start()
        try:
            async with connect(nats_url) as bus:
                claim = ClaimTasks(agent_id="a", categories=CATEGORIES, limit=50)
                taken: list[UUID] = []
                while found := (await bus.call(claim)).tasks:
                    taken += [one.task.id for one in found]
        finally:
            await service.stop()
        assert sorted(taken) == sorted(ready)
