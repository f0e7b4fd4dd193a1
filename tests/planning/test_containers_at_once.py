"""Containers whose last tasks change at once, and what it costs to look at them."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.planning.tasks import (
    ClaimTasks,
    CompleteTask,
    CreateTask,
    DeleteTask,
)
from fleetbus.client import Bus
from tests.bus.asking import eventually, waiting_for_locks
from tests.kit.outbox import Outbox
from tests.planning import arrange
from tests.planning.arrange import add_claimed
from tests.planning.test_containers import status

ROUNDS = 10
"""How often two calls are made at once; they do not meet every time."""


class TestAtOnce:
    async def test_the_last_two_tasks_of_an_initiative(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        for _ in range(ROUNDS):
            initiative = await arrange.an_initiative(bus)
            tasks = [await add_claimed(db, initiative_id=initiative.id) for _ in range(2)]
            calls = [bus.call(CompleteTask(id=tasks[0])), bus.call(DeleteTask(id=tasks[1]))]
            await asyncio.gather(*calls)
            assert await status(bus, initiative=initiative.id) == "pending_review"
        assert (await outbox.types()).count("initiative.pending_review") == ROUNDS

    async def test_the_last_is_completed_while_one_is_added(
        self, bus: Bus, db: AsyncConnection
    ) -> None:
        for _ in range(ROUNDS):
            phase = await arrange.a_lone_phase(bus, status="in_progress")
            await asyncio.gather(
                bus.call(CompleteTask(id=await arrange.add_task_of(db, phase))),
                bus.call(CreateTask(name="more", phase_id=phase.id)),
            )
            assert await status(bus, phase=phase.id) == "in_progress"

    async def test_a_completion_that_saw_another_task_is_waited_for(
        self, bus: Bus, db: AsyncConnection
    ) -> None:
        """Held at its COMMIT, while what it saw is claimed and completed as well."""
        phase = await arrange.a_lone_phase(bus, status="in_progress")
        first, other = (
            await arrange.add_task_of(db, phase),
            await arrange.add_task_of(db, phase, "pending"),
        )
        await hold_the_end_of(db, first)
        await db.execute(text("BEGIN"))
        await db.execute(text("SELECT pg_advisory_xact_lock(7)"))
        completion = asyncio.create_task(bus.call(CompleteTask(id=first)))
        await eventually(lambda: waiting_for_locks(db))

        await bus.call(ClaimTasks(agent_id="w"))
        last_one = asyncio.create_task(bus.call(CompleteTask(id=other)))
        await eventually(lambda: blocked(db, 2))
        await db.execute(text("COMMIT"))
        await asyncio.gather(completion, last_one)

        assert await status(bus, phase=phase.id) == "pending_review"


async def hold_the_end_of(db: AsyncConnection, task: UUID) -> None:
    """Let the transaction that completes this task wait for a lock when it commits."""
    await db.execute(
        text(
            "CREATE FUNCTION pg_temp_hold() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NULL; END $$"
        )
    )
    await db.execute(
        text(
            "CREATE CONSTRAINT TRIGGER hold AFTER UPDATE ON planning.tasks DEFERRABLE "
            f"INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.id = '{task}') "
            "EXECUTE FUNCTION pg_temp_hold()"
        )
    )


async def blocked(db: AsyncConnection, number: int) -> bool:
    statement = "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted"
    return int((await db.execute(text(statement))).scalar_one()) >= number


class TestNoStatementMore:
    async def test_where_another_task_keeps_it_open(
        self, bus: Bus, db: AsyncConnection, statements: Callable[[], Any]
    ) -> None:
        phase = await arrange.a_lone_phase(bus, status="in_progress")
        inside = [await arrange.add_task_of(db, phase) for _ in range(2)]
        await arrange.add_task_of(db, phase, "pending")
        outside = await add_claimed(db, initiative_id=phase.initiative_id)

        with statements() as counted:
            for id_ in (*inside, outside):
                await bus.call(CompleteTask(id=id_))

        assert counted.total == 2 * 3, counted.texts

    async def test_where_a_task_is_added_to_what_is_open(
        self, bus: Bus, statements: Callable[[], Any]
    ) -> None:
        phase = await arrange.a_lone_phase(bus, status="in_progress")

        with statements() as counted:
            await bus.call(CreateTask(name="t", phase_id=phase.id))

        assert counted.total == 2, counted.texts
