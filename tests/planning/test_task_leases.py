import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from bus.handling.shapes import Handling
from bus.running.calls import OUTSIDE
from bus.running.registry import Registry
from bus.running.transaction import begin
from bus.running.work import react
from bus.storage.database import driver_url
from bus.storage.own import commit as _commit
from contracts.planning.tasks import (
    CompleteTask,
    GetTask,
    StaleAttempt,
)
from fleetbus.client import Bus
from fleetbus.server.service import Service
from handlers.planning._task_leases import expire_task_leases
from persistence.planning.tables import task as task_table
from tests.counting import Counted
from tests.kit.outbox import Outbox
from tests.planning.arrange import add_claimed, row

Statements = Callable[[], AbstractContextManager[Counted]]

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def job_of(registry: Registry) -> Handling:
    [job] = [job for job in registry.jobs if job.name == "expire_task_leases"]
    return job.handling


async def sweep(service: Service, registry: Registry, limit: int = 100) -> int:
    """One step of the sweeper's job."""
    async with begin(service.database, left=lambda: 10.0) as tx:
        tx.now = (await _commit.open_work(tx.db, OUTSIDE, [])).now
        tx.strict = True
        emit = tx.emitter(job_of(registry), "sweeper:task_leases", None)
        handled = await expire_task_leases(
            db=tx.db, emit=emit, now=tx.now, served_at=tx.now, limit=limit
        )
        await react(registry, tx)
        await tx.append(OUTSIDE, tx.outbox_rows(), [])
        await tx.commit()
    return handled


class TestExpireTaskLeases:
    async def test_back_to_the_queue(
        self,
        service: Service,
        registry: Registry,
        bus: Bus,
        db: AsyncConnection,
        outbox: Outbox,
    ) -> None:
        id_ = await add_claimed(db, lease_expires_at=LONG_AGO)
        await add_claimed(db, lease_expires_at=datetime.now(UTC) + timedelta(hours=1))
        await add_claimed(db)

        assert await sweep(service, registry) == 1

        task = await bus.call(GetTask(id=id_))
        assert (task.status, task.retry_count, task.version) == ("pending", 1, 2)
        assert (task.claimed_by, task.lease_expires_at, task.attempt) == (None, None, 1)
        event, ready = await outbox.all()
        assert (event.type, event.data["claimed_by"]) == ("task.lease_expired", "agent")
        assert (ready.type, ready.cause) == ("task.ready", "reaction:tell_ready_again")

    async def test_blocked_after_three_retries(
        self,
        service: Service,
        registry: Registry,
        bus: Bus,
        db: AsyncConnection,
        outbox: Outbox,
    ) -> None:
        id_ = await add_claimed(db, lease_expires_at=LONG_AGO, retry_count=3, attempt=4)

        await sweep(service, registry)

        task = await bus.call(GetTask(id=id_))
        assert (task.status, task.retry_count, task.version) == ("blocked", 3, 3)
        assert task.blocked_reason is not None
        told = [(event.type, event.data["task"]["version"]) for event in await outbox.all()]
        assert told == [("task.lease_expired", 2), ("task.blocked", 3)]

    async def test_in_bounded_steps(
        self, service: Service, registry: Registry, db: AsyncConnection
    ) -> None:
        for n in range(5):
            await add_claimed(db, lease_expires_at=LONG_AGO + timedelta(seconds=n))

        assert [await sweep(service, registry, limit=2) for _ in range(4)] == [2, 2, 1, 0]

    async def test_a_completion_in_work_is_passed_over(
        self, service: Service, registry: Registry, db: AsyncConnection, database_url: str
    ) -> None:
        id_ = await add_claimed(db, lease_expires_at=LONG_AGO)
        engine = create_async_engine(driver_url(database_url))
        async with engine.connect() as other:
            await other.execute(
                task_table.update().where(task_table.c.id == id_).values(status="completed")
            )
            assert await sweep(service, registry) == 0
            await other.commit()
        await engine.dispose()

        assert await sweep(service, registry) == 0
        assert (await row(db, id_)).status == "completed"

    async def test_a_completion_after_it_is_late(
        self, service: Service, registry: Registry, bus: Bus, db: AsyncConnection
    ) -> None:
        id_ = await add_claimed(db, lease_expires_at=LONG_AGO)
        async with begin(service.database, left=lambda: 10.0) as tx:
            tx.now = (await _commit.open_work(tx.db, OUTSIDE, [])).now
            assert await expire_task_leases(
                db=tx.db,
                emit=tx.emitter(job_of(registry), None, None),
                now=tx.now,
                served_at=tx.now,
                limit=10,
            )
            completing = asyncio.create_task(bus.call(CompleteTask(id=id_, attempt=1, summary="s")))
            await asyncio.sleep(0.1)
            assert not completing.done()
            await tx.commit()

        with pytest.raises(StaleAttempt) as refused:
            await completing

        assert refused.value.task_status == "pending"
        assert [late["summary"] for late in (await row(db, id_)).late_results] == ["s"]

    async def test_completions_against_expiry(
        self, service: Service, registry: Registry, bus: Bus, db: AsyncConnection
    ) -> None:
        ids = [await add_claimed(db, lease_expires_at=LONG_AGO) for _ in range(64)]

        async def complete(id_: UUID) -> bool:
            try:
                await bus.call(CompleteTask(id=id_, attempt=1, summary=str(id_)))
            except StaleAttempt:
                return False
            return True

        *completed, _ = await asyncio.gather(
            *(complete(id_) for id_ in ids[:32]),
            sweep(service, registry, limit=16),
        )
        await sweep(service, registry)
        rows = [await row(db, id_) for id_ in ids[:32]]

        assert [one.status == "completed" for one in rows] == completed
        for one in rows:
            brought = [one.summary, *(late["summary"] for late in one.late_results)]
            assert str(one.id) in brought
