"""Deletions in steps beside others: who comes first is told first, and nobody comes after."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import InvalidReference, Refusal
from bus.contract.operation import Command
from bus.kit.ids import uuid7
from contracts.agents.agents import GetAgent
from contracts.planning.initiatives import (
    CreateInitiative,
    DeleteInitiative,
    GetInitiative,
    InitiativeNotFound,
)
from contracts.planning.tasks import (
    ClaimTasks,
    CompleteTask,
    CreateTask,
    GetTask,
    ListTasks,
    TaskNotFound,
    UpdateTask,
)
from fleetbus.client import Bus
from fleetbus.server.config import Settings
from fleetbus.server.service import Service
from tests.agents.arrange import an_agent
from tests.kit.outbox import Outbox
from tests.kit.sweeping import Sweep
from tests.planning import arrange
from tests.planning.test_deletions_in_steps import BOUND, large, left, remove_all
from tests.servers import connection_to

WAITING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"delete_at_once": BOUND})


@asynccontextmanager
async def locked(database_url: str, phase: UUID) -> AsyncIterator[None]:
    """A phase that somebody else is at."""
    async with connection_to(database_url) as other:
        await other.execute(text("BEGIN"))
        await other.execute(
            text("SELECT id FROM planning.phases WHERE id = :id FOR UPDATE"), {"id": phase}
        )
        yield
        await other.execute(text("ROLLBACK"))


async def somebody_waits(db: AsyncConnection) -> None:
    async with asyncio.timeout(10):
        while not await db.scalar(text(WAITING)):
            pass


async def refused(call: Awaitable[Any]) -> Refusal | None:
    try:
        await call
    except Refusal as refusal:
        return refusal
    return None


class TestInFlight:
    """Commands that have read or locked a part, and come to their end after its deletion."""

    @pytest.fixture
    async def plan(self, bus: Bus, db: AsyncConnection) -> dict[str, UUID]:
        phase = await arrange.a_lone_phase(bus)
        await arrange.set_status(db, phase, "in_progress")
        initiative = phase.initiative_id
        task = await bus.call(CreateTask(name="in the phase", phase_id=phase.id))
        await bus.call(ClaimTasks(agent_id="a", initiative_id=initiative))
        for n in range(BOUND + 1):
            await bus.call(CreateTask(name=f"{n}", initiative_id=initiative))
        return {"initiative": initiative, "phase": phase.id, "task": task.id}

    @pytest.mark.parametrize(
        ("make", "refusal"),
        [
            (lambda plan: CompleteTask(id=plan["task"]), TaskNotFound),
            (lambda plan: CreateTask(name="new", phase_id=plan["phase"]), InvalidReference),
            (
                lambda plan: UpdateTask(id=plan["task"], phase_id=None),
                TaskNotFound,
            ),
        ],
        ids=["completed", "created", "moved"],
    )
    async def test_nothing_is_told_after_the_deletion(
        self,
        bus: Bus,
        db: AsyncConnection,
        database_url: str,
        service: Service,
        outbox: Outbox,
        plan: dict[str, UUID],
        make: Callable[[dict[str, UUID]], Command[Any]],
        refusal: type[Refusal],
    ) -> None:
        async with locked(database_url, plan["phase"]):
            late = asyncio.create_task(refused(bus.call(make(plan))))
            await somebody_waits(db)
            await bus.call(DeleteInitiative(id=plan["initiative"]))

        assert type(await late) is refusal
        assert (await outbox.last()).type == "initiative.deleted"
        await remove_all(Sweep(service))
        assert await left(db) == {}

    async def test_many_at_once_keep_the_order(
        self, bus: Bus, db: AsyncConnection, service: Service, outbox: Outbox
    ) -> None:
        """Whatever is accepted is told before the deletion; the rest is refused."""
        initiative = await bus.call(CreateInitiative(name="busy"))
        ids = [uuid7() for _ in range(40)]
        for id_ in ids:
            await bus.call(CreateTask(id=id_, name="t", initiative_id=initiative.id))
        started = asyncio.Event()

        async def work(part: list[UUID]) -> list[Refusal | None]:
            answers = []
            for id_ in part:
                answers.append(await refused(bus.call(UpdateTask(id=id_, name="n"))))
                created = CreateTask(name="more", initiative_id=initiative.id)
                answers.append(await refused(bus.call(created)))
                started.set()
            return answers

        working = [asyncio.create_task(work(ids[n::8])) for n in range(8)]
        await started.wait()
        await bus.call(DeleteInitiative(id=initiative.id))
        answers = [answer for part in await asyncio.gather(*working) for answer in part]

        types = await outbox.types()
        assert types[-1] == "initiative.deleted"
        done = types.count("task.updated") + types.count("task.created") - len(ids)
        assert done == answers.count(None)
        assert {type(answer) for answer in answers if answer} <= {TaskNotFound, InvalidReference}
        await remove_all(Sweep(service))
        assert await left(db) == {}


class TestTwoAtOnce:
    async def test_one_deletes(self, bus: Bus, db: AsyncConnection, outbox: Outbox) -> None:
        initiative, _ = await large(bus)
        delete = DeleteInitiative(id=initiative.id)
        answers = await asyncio.gather(*(refused(bus.call(delete)) for _ in range(4)))
        assert sorted(type(answer) is InitiativeNotFound for answer in answers) == [
            False,
            True,
            True,
            True,
        ]
        assert (await outbox.types()).count("initiative.deleted") == 1
        assert (await left(db))["deletions"] == 1

    async def test_two_of_different_ones(
        self, bus: Bus, db: AsyncConnection, service: Service
    ) -> None:
        one, other = (await large(bus))[0], (await large(bus))[0]
        await asyncio.gather(*(bus.call(DeleteInitiative(id=each.id)) for each in (one, other)))
        assert (await left(db))["deletions"] == 2
        await remove_all(Sweep(service))
        assert await left(db) == {}


class TestReferences:
    async def test_an_agent_that_came_meanwhile_lets_go_before_the_rows_go(
        self, bus: Bus, db: AsyncConnection, service: Service, outbox: Outbox, sweep: Sweep
    ) -> None:
        initiative, tasks = await large(bus)
        agent = await an_agent(bus)
        await bus.call(DeleteInitiative(id=initiative.id))
        # As one does that read both before the deletion, and commits after it.
        came = "UPDATE agents.agents SET task_id = :task, initiative_id = :initiative"
        await db.execute(text(came), {"task": tasks[0].id, "initiative": initiative.id})

        while await sweep("remove_deleted"):
            pass
        assert await left(db) == {"initiatives": 1, "tasks": 1, "deletions": 1}

        assert await sweep("let_go_of_removed") == 1
        after = await bus.call(GetAgent(id=agent.id))
        assert (after.task_id, after.initiative_id) == (None, None)
        assert (await outbox.last()).type == "agent.updated"
        await remove_all(Sweep(service))
        assert await left(db) == {}


class TestCalls:
    async def test_a_dry_run_leaves_everything(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        initiative, tasks = await large(bus)
        number = await outbox.count()
        would = await bus.call(DeleteInitiative(id=initiative.id), dry_run=True)
        assert would.deleted.tasks == len(tasks)
        assert await bus.call(GetInitiative(id=initiative.id)) == initiative
        assert await outbox.count() == number
        assert "deletions" not in await left(db)

    async def test_a_key_has_one_answer(self, bus: Bus, service: Service, outbox: Outbox) -> None:
        initiative, _ = await large(bus)
        delete = DeleteInitiative(id=initiative.id)
        first = await bus.call(delete, key="once")
        assert await bus.call(delete, key="once") == first
        await remove_all(Sweep(service))
        assert await bus.call(delete, key="once") == first
        assert (await outbox.types()).count("initiative.deleted") == 1

    async def test_in_a_transaction_of_several(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        initiative, tasks = await large(bus)
        async with bus.transaction() as tx:
            tx.call(UpdateTask(id=tasks[0].id, name="renamed"))
            tx.call(DeleteInitiative(id=initiative.id))
            other = tx.call(CreateTask(name="other"))
        assert (await outbox.types())[-3:] == [
            "task.updated",
            "initiative.deleted",
            "task.created",
        ]
        assert (await bus.call(ListTasks())).items == [other.reply]
        assert (await left(db))["deletions"] == 1

    async def test_in_a_transaction_that_fails(self, bus: Bus, db: AsyncConnection) -> None:
        initiative, tasks = await large(bus)

        async def fail() -> None:
            async with bus.transaction() as tx:
                tx.call(DeleteInitiative(id=initiative.id))
                tx.call(UpdateTask(id=tasks[0].id, name="renamed"))

        with pytest.raises(TaskNotFound):
            await fail()
        assert await bus.call(GetTask(id=tasks[0].id)) == tasks[0]
        assert "deletions" not in await left(db)
