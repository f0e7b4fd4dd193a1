import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from bus.contract.errors import InvalidReference
from bus.kit.ids import uuid7
from bus.storage.database import driver_url
from bus.storage.driver import Compiled, fetch
from contracts.planning.tasks import (
    ClaimedTasks,
    ClaimTasks,
    GetTask,
)
from fleetbus.client import Bus
from persistence.planning import task_claims as _task_claims
from persistence.planning.tables import task as task_table
from tests.bus.asking import eventually, waiting_for_locks
from tests.counting import Counted
from tests.kit.outbox import Outbox
from tests.planning.arrange import add_claimed, add_initiative, add_phase, add_task, depend

Statements = Callable[[], AbstractContextManager[Counted]]

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def names(claimed: ClaimedTasks) -> list[str]:
    return [one.task.name for one in claimed.tasks]


async def claim(bus: Bus, **values: Any) -> ClaimedTasks:
    return await bus.call(ClaimTasks(**{"agent_id": "agent", "limit": 50, **values}))


class TestClaimTasks:
    async def test_by_priority_position_and_age(self, bus: Bus, db: AsyncConnection) -> None:
        tasks: dict[str, dict[str, Any]] = {
            "last": {"priority": "low", "position": -9},
            "third": {"position": 1},
            "second": {"position": 0},
            "first": {"priority": "high", "position": 9},
            "fourth": {"position": 1},
        }
        for name, given in tasks.items():
            await add_task(db, name=name, **given)

        assert names(await claim(bus, limit=4)) == ["first", "second", "third", "fourth"]
        assert names(await claim(bus)) == ["last"]

    async def test_the_task_is_in_the_hands_of_the_agent(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        id_ = await add_task(db, attempt=4)

        (one,) = (await claim(bus, agent_id="a7", lease_seconds=60)).tasks

        task = one.task
        assert (task.status, task.claimed_by, task.attempt) == ("in_progress", "a7", 5)
        assert task.version == 2
        assert task.lease_expires_at is not None
        assert task.lease_expires_at - task.updated_at == timedelta(seconds=60)
        assert await bus.call(GetTask(id=id_)) == task
        (event,) = await outbox.all()
        assert (event.type, event.data["task"]["attempt"]) == ("task.claimed", 5)

    async def test_with_what_an_agent_needs_to_begin(self, bus: Bus, db: AsyncConnection) -> None:
        initiative_id = await add_initiative(db, name="i")
        phase_id = await add_phase(db, initiative_id, name="p", content={"type": "doc"})
        id_ = await add_task(db, phase_id=phase_id, initiative_id=initiative_id)
        await depend(db, id_, await add_task(db, name="d", status="completed", summary="s"))

        (one,) = (await claim(bus)).tasks

        assert one.phase is not None
        assert (one.phase.id, one.phase.content) == (phase_id, {"type": "doc"})
        assert one.initiative is not None
        assert one.initiative.id == initiative_id
        assert [(other.name, other.summary) for other in one.dependencies] == [("d", "s")]

    async def test_only_what_is_ready(self, bus: Bus, db: AsyncConnection) -> None:
        initiative_id = await add_initiative(db)
        for status in ("pending", "approved", "pending_review", "completed", "blocked"):
            phase_id = await add_phase(db, initiative_id, status=status)
            await add_task(db, name=status, phase_id=phase_id)
        await depend(db, await add_task(db, name="waits"), await add_claimed(db))
        await add_task(db, name="held", status="blocked")
        done = await add_task(db, status="completed")
        await depend(db, await add_task(db, name="ready"), done)

        assert names(await claim(bus)) == ["ready"]

    async def test_nothing_ready_is_an_empty_list(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        initiative_id = await add_initiative(db)
        phase_id = await add_phase(db, initiative_id)

        assert (await claim(bus, initiative_id=initiative_id, phase_id=phase_id)).tasks == []
        assert await outbox.all() == []

    async def test_in_one_initiative_or_phase(self, bus: Bus, db: AsyncConnection) -> None:
        mine = await add_initiative(db)
        phase_id = await add_phase(db, mine)
        await add_task(db, name="elsewhere", priority="high")
        await add_task(db, name="mine", initiative_id=mine)
        await add_task(db, name="in phase", initiative_id=mine, phase_id=phase_id)

        assert names(await claim(bus, phase_id=phase_id)) == ["in phase"]
        assert names(await claim(bus, initiative_id=mine)) == ["mine"]

    async def test_planning_only_when_it_is_named(self, bus: Bus, db: AsyncConnection) -> None:
        planning = ["research", "discuss", "plan", "detail", "refine"]
        working = ["execute", "verify", "merge", "review"]
        for category in planning + working:
            await add_task(db, name=category, category=category)

        assert names(await claim(bus)) == working
        assert names(await claim(bus, categories=["plan", "detail"])) == ["plan", "detail"]

    @pytest.mark.parametrize("limit", [1, 50])
    async def test_the_context_is_cut_before_the_queue_is_held_up(
        self, bus: Bus, db: AsyncConnection, limit: int
    ) -> None:
        id_ = await add_task(db, name="large", priority="high")
        for _ in range(100):
            await depend(db, id_, await add_task(db, status="completed", summary="€" * 4_000))
        for n in range(5):
            await add_task(db, name=str(n), description="€" * 80_000)

        (large,) = (await claim(bus, limit=limit)).tasks
        assert large.task.name == "large"
        assert {other.summary for other in large.dependencies} == {None}
        assert large.shortened == ["dependencies.summary"]
        assert names(await claim(bus)) == ["0", "1", "2", "3"]
        assert names(await claim(bus)) == ["4"]

    async def test_the_number_of_statements_for_one_and_for_fifty(
        self, bus: Bus, db: AsyncConnection, statements: Statements
    ) -> None:
        for _ in range(51):
            await add_task(db)
        # clock and key, lock with context, update, outbox and key; one alone is locked and updated
        for limit, expected in ((1, 3), (50, 4)):
            with statements() as counted:
                assert len((await claim(bus, limit=limit)).tasks) == limit
            assert counted.total == expected, counted.texts

    async def test_claims_that_come_together_share_a_transaction_and_the_order(
        self, bus: Bus, db: AsyncConnection, statements: Statements, outbox: Outbox
    ) -> None:
        for position in range(10):
            await add_task(db, name=str(position), position=position)
        claims = [
            ClaimTasks(agent_id=f"a{n}", limit=limit, lease_seconds=60 + n)
            for n, limit in enumerate((1, 3, 2, 9))
        ]

        with statements() as counted:
            got = await asyncio.gather(*(bus.call(one, key=one.agent_id) for one in claims))

        assert [names(one) for one in got] == [["0"], ["1", "2", "3"], ["4", "5"], [*"6789"]]
        # One alone takes three.
        assert counted.total < 4 * 3, counted.texts
        mine = {(one.task.claimed_by, n) for n, reply in enumerate(got) for one in reply.tasks}
        assert mine == {(f"a{n}", n) for n in range(4)}
        told = await outbox.all("task.claimed")
        assert {(row.data["task"]["claimed_by"], row.cause) for row in told} == {
            (f"a{n}", f"a{n}") for n in range(4)
        }

    async def test_claims_that_come_together_keep_their_own_filters_and_refusals(
        self, bus: Bus, db: AsyncConnection
    ) -> None:
        initiative = await add_initiative(db)
        await add_task(db, name="of the initiative", initiative_id=initiative)
        await add_task(db, name="a plan", category="plan")
        claims = [
            ClaimTasks(agent_id="a", categories=["plan"]),
            ClaimTasks(agent_id="b", initiative_id=uuid7()),
            ClaimTasks(agent_id="c", initiative_id=initiative),
            ClaimTasks(agent_id="d", categories=["research"]),
        ]

        plan, unknown, own, nothing = await asyncio.gather(
            *(bus.call(one) for one in claims), return_exceptions=True
        )

        assert [type(one) for one in (plan, unknown, own, nothing)] == [
            *(ClaimedTasks, InvalidReference, ClaimedTasks, ClaimedTasks)
        ]
        assert [names(one) for one in (plan, own, nothing) if isinstance(one, ClaimedTasks)] == [
            *(["a plan"], ["of the initiative"], [])
        ]

    async def test_claims_that_come_together_never_get_the_same_task(
        self, bus: Bus, db: AsyncConnection
    ) -> None:
        initiative = await add_initiative(db)
        await add_task(db, name="first", initiative_id=initiative)
        await add_task(db, name="second", initiative_id=initiative, position=1)
        claims = [
            ClaimTasks(agent_id="a"),
            ClaimTasks(agent_id="b", initiative_id=initiative),
            ClaimTasks(agent_id="c", categories=["execute"]),
        ]

        got = await asyncio.gather(*(bus.call(one) for one in claims))

        assert [names(one) for one in got] == [["first"], ["second"], []]

    async def test_each_of_a_thousand_tasks_to_one_of_32_claimers(
        self, bus: Bus, db: AsyncConnection
    ) -> None:
        rows = [{"id": uuid7(), "name": str(n), "position": n % 7} for n in range(1_000)]
        await db.execute(insert(task_table), rows)

        async def work(number: int) -> list[UUID]:
            taken: list[UUID] = []
            while found := (await claim(bus, agent_id=f"a{number}", limit=1 + number % 10)).tasks:
                taken += [one.task.id for one in found]
            return taken

        taken = await asyncio.gather(*(work(number) for number in range(32)))

        given = [id_ for ids in taken for id_ in ids]
        assert len(given) == 1_000
        assert set(given) == {one["id"] for one in rows}

    async def test_a_task_that_someone_works_on_is_passed_over(
        self, bus: Bus, db: AsyncConnection, database_url: str
    ) -> None:
        open_ = await add_claimed(db)
        id_ = await add_task(db, name="not now", priority="high")
        await add_task(db, name="instead")
        engine = create_async_engine(driver_url(database_url))
        async with engine.connect() as other:
            await other.execute(task_table.update().where(task_table.c.id == id_).values(version=2))
            await depend(other, id_, open_)
            first = await claim(bus, limit=1)
            await other.commit()
        await engine.dispose()

        assert names(first) == ["instead"]
        assert names(await claim(bus)) == []

    @pytest.mark.parametrize("limit", [1, 3])
    async def test_what_changes_between_being_seen_and_being_locked_is_looked_at_again(
        self, bus: Bus, db: AsyncConnection, monkeypatch: pytest.MonkeyPatch, limit: int
    ) -> None:
        waits = await add_task(db, name="waits by then")
        renamed = await add_task(db, name="called otherwise")
        await add_task(db, name="as it was")
        await add_task(db, name="instead")
        open_ = await add_claimed(db)

        async def seeing_before(db: AsyncConnection, statement: Compiled, values: Any) -> Any:
            wait = "WHERE pg_advisory_xact_lock_shared(1)::text = '' AND planning.tasks.status"
            text = statement.text.replace("WHERE planning.tasks.status", wait, 1)
            return await fetch(db, Compiled(text, statement.order), values)

        monkeypatch.setattr(_task_claims, "fetch", seeing_before)
        await db.execute(select(func.pg_advisory_lock(1)))
        claiming = asyncio.create_task(claim(bus, limit=limit))
        await eventually(lambda: waiting_for_locks(db))
        await db.execute(task_table.update().where(task_table.c.id == waits).values(version=2))
        await depend(db, waits, open_)
        change = {"version": 2, "name": "changed"}
        await db.execute(task_table.update().where(task_table.c.id == renamed).values(change))
        await db.execute(select(func.pg_advisory_unlock(1)))

        assert names(await claiming) == ["changed", "as it was", "instead"][:limit]
