"""An outage longer than a lease: nobody is crashed for what nobody could have done."""

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.kit.aio import end
from bus.running.transaction import CommitUnknown
from contracts.agents.agents import Agent, FinishAgent, GetAgent, RegisterAgent
from contracts.planning.tasks import ClaimTasks, CreateTask, GetTask, RenewTask, Task
from fleetbus.client import Bus
from fleetbus.server.service import Service
from fleetbus.server.sweeper.liveness import OUTAGE_AFTER, Liveness
from fleetbus.server.sweeper.sweeper import Sweeper, sweeps
from tests.bus.asking import eventually
from tests.kit.outbox import Outbox
from tests.servers import connection_to

LEASE = timedelta(seconds=30)
CLAIM = timedelta(seconds=45)
JOBS = ("expire_agent_leases", "expire_task_leases")


LOST_AT_COMMIT = [
    """
    CREATE FUNCTION bus.be_lost() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$
    """,
    """
    CREATE CONSTRAINT TRIGGER lost AFTER UPDATE ON bus.pulse DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION bus.be_lost()
    """,
]


async def serves() -> bool:
    return True


async def beat(service: Service) -> None:
    await Liveness(service.database, serves).beat()


async def pass_by(db: AsyncConnection, seconds: float, *, served: bool) -> None:
    """Time passes for all that is stored, while requests were answered or while they were not."""
    moved: dict[str, list[str]] = {
        "agents.agents": ["lease_expires_at"],
        "planning.tasks": ["lease_expires_at"],
        "health.test_runs": ["timeout_at"],
        "bus.pulse": [] if served else ["served_at"],
    }
    for table, columns in moved.items():
        for column in columns:
            await db.execute(
                text(f"UPDATE {table} SET {column} = {column} - make_interval(secs => :seconds)"),
                {"seconds": seconds},
            )


async def sweep(service: Service) -> int:
    """A step of each job that ends leases, as it runs beside a pulse."""
    settings = service.settings.model_copy(update={"sweeper": True})
    work = {task.name: task for task in sweeps(service.registry, settings)}
    sweeper = Sweeper(service.registry, service.database, [])
    return sum([await sweeper._step(work[job], 0) for job in JOBS])


async def pulse(db: AsyncConnection) -> Any:
    return (await db.execute(text("SELECT * FROM bus.pulse"))).one()


async def at_work(bus: Bus) -> tuple[Agent, Task]:
    """An agent, and a task that is claimed by a name that is no agent's."""
    agent = await bus.call(RegisterAgent())
    await bus.call(CreateTask(name="a task"))
    claim = ClaimTasks(agent_id="worker-1", lease_seconds=int(CLAIM.total_seconds()))
    return agent, (await bus.call(claim)).tasks[0].task


async def leases(bus: Bus, agent: UUID, task: UUID) -> tuple[datetime | None, datetime | None]:
    found = await bus.call(GetAgent(id=agent)), await bus.call(GetTask(id=task))
    return found[0].lease_expires_at, found[1].lease_expires_at


@pytest_asyncio.fixture
async def served(service: Service) -> None:
    """A database of which somebody has just proved that requests are answered."""
    await beat(service)


@pytest.mark.usefixtures("served")
class TestOutage:
    @pytest.mark.parametrize("seconds", [10, 35, 600, 10_000_000])
    async def test_what_was_live_has_its_full_length_again(
        self, service: Service, bus: Bus, db: AsyncConnection, outbox: Outbox, seconds: float
    ) -> None:
        agent, task = await at_work(bus)
        await beat(service)
        before = await outbox.types()
        await pass_by(db, seconds, served=False)
        assert await sweep(service) == 0

        await beat(service)

        since = (await pulse(db)).restored_at
        assert await leases(bus, agent.id, task.id) == (since + LEASE, since + CLAIM)
        assert await sweep(service) == 0
        found = await bus.call(GetAgent(id=agent.id))
        assert (found.version, found.status) == (agent.version, "idle")
        assert (await bus.call(GetTask(id=task.id))).version == task.version
        assert await outbox.types() == before

    async def test_who_did_not_come_back_is_known_after_that(
        self, service: Service, bus: Bus, db: AsyncConnection
    ) -> None:
        agent, task = await at_work(bus)
        await beat(service)
        await pass_by(db, 600, served=False)
        await beat(service)
        await pass_by(db, 31, served=True)
        assert await sweep(service) == 1
        assert (await bus.call(GetAgent(id=agent.id))).status == "crashed"
        await pass_by(db, 15, served=True)
        assert await sweep(service) == 1
        assert (await bus.call(GetTask(id=task.id))).status == "pending"

    async def test_what_had_run_out_before_is_not_revived(
        self, service: Service, bus: Bus, db: AsyncConnection
    ) -> None:
        agent, task = await at_work(bus)
        await pass_by(db, 46, served=True)
        await beat(service)
        await pass_by(db, 600, served=False)

        await beat(service)

        assert await sweep(service) == 2
        assert (await bus.call(GetAgent(id=agent.id))).status == "crashed"
        assert (await bus.call(GetTask(id=task.id))).status == "pending"

    async def test_a_real_crash_is_known_in_time(
        self, service: Service, bus: Bus, db: AsyncConnection
    ) -> None:
        await at_work(bus)
        before = (await pulse(db)).restored_at
        for _ in range(23):
            await pass_by(db, 2, served=True)
            await beat(service)
        assert await sweep(service) == 2
        assert (await pulse(db)).restored_at == before

    async def test_one_outage_after_the_other(
        self, service: Service, bus: Bus, db: AsyncConnection
    ) -> None:
        agent, task = await at_work(bus)
        await beat(service)
        for seconds in (10, 25, 40, 600):
            await pass_by(db, seconds, served=False)
            assert await sweep(service) == 0
            await beat(service)
            since = (await pulse(db)).restored_at
            assert await leases(bus, agent.id, task.id) == (since + LEASE, since + CLAIM)

    async def test_the_length_of_the_last_renewal(
        self, service: Service, bus: Bus, db: AsyncConnection
    ) -> None:
        _, task = await at_work(bus)
        await bus.call(RenewTask(id=task.id, attempt=1, lease_seconds=7))
        await beat(service)
        await pass_by(db, 5, served=False)
        await beat(service)
        renewed = await bus.call(GetTask(id=task.id))
        assert renewed.lease_expires_at == (await pulse(db)).restored_at + timedelta(seconds=7)
        assert renewed.lease_seconds == 7

    async def test_of_a_finished_agent_nothing_is_expected_afterwards(
        self, service: Service, bus: Bus, db: AsyncConnection
    ) -> None:
        agent, _ = await at_work(bus)
        await bus.call(CreateTask(name="another"))
        await bus.call(ClaimTasks(agent_id=str(agent.id)))
        await bus.call(FinishAgent(id=agent.id))
        await beat(service)
        await pass_by(db, 600, served=False)
        await beat(service)
        assert (await bus.call(GetAgent(id=agent.id))).lease_expires_at is None

    async def test_a_longer_lease_is_not_cut(
        self, service: Service, bus: Bus, db: AsyncConnection
    ) -> None:
        agent, task = await at_work(bus)
        await beat(service)
        await pass_by(db, 10, served=False)
        later = "UPDATE agents.agents SET lease_expires_at = now() + interval '1 hour'"
        await db.execute(text(later))
        before, _ = await leases(bus, agent.id, task.id)
        await beat(service)
        assert (await leases(bus, agent.id, task.id))[0] == before


@pytest.mark.usefixtures("served")
class TestProcesses:
    async def test_as_long_as_one_serves_there_is_no_outage(
        self, service: Service, bus: Bus, db: AsyncConnection
    ) -> None:
        async def serves_not() -> bool:
            return False

        await beat(service)
        beats = [Liveness(service.database, how, interval=0.02) for how in (serves, serves_not)]
        running = [asyncio.create_task(one.run()) for one in beats]
        before = await pulse(db)

        async def is_served() -> bool:
            served = (await pulse(db)).served_at - before.served_at
            return bool(served > timedelta(seconds=2 * OUTAGE_AFTER))

        await eventually(is_served)
        beats[0].stop()
        await running[0]
        last = (await pulse(db)).served_at
        assert (await pulse(db)).restored_at == before.restored_at
        assert not running[1].done()
        await end(running[1])
        assert (await pulse(db)).served_at == last

    async def test_whichever_comes_first_restores_once(
        self, service: Service, bus: Bus, db: AsyncConnection
    ) -> None:
        agent, task = await at_work(bus)
        await beat(service)
        await pass_by(db, 600, served=False)

        await asyncio.gather(*(beat(service) for _ in range(4)))

        since = (await pulse(db)).restored_at
        assert await leases(bus, agent.id, task.id) == (since + LEASE, since + CLAIM)

    @pytest.mark.parametrize("table", ["agents.agents", "planning.tasks", "bus.requests"])
    async def test_a_lock_that_stops_heartbeats_stops_it_too(
        self, service: Service, db: AsyncConnection, database_url: str, table: str
    ) -> None:
        await beat(service)
        before = (await pulse(db)).served_at
        async with connection_to(database_url) as holder:
            await holder.execute(text("BEGIN"))
            await holder.execute(text(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
            with pytest.raises(Exception, match="lock timeout"):
                await beat(service)
        assert (await pulse(db)).served_at == before


async def test_a_beat_that_is_lost_at_its_commit_is_no_line_of_its_own(
    service: Service, db: AsyncConnection, caplog: pytest.LogCaptureFixture
) -> None:
    for statement in LOST_AT_COMMIT:
        await db.execute(text(statement))
    with pytest.raises(CommitUnknown) as lost:
        await beat(service)
    await eventually(lambda: service.database.available)

    Liveness(service.database, serves)._failed(lost.value)

    assert "no lease runs out" not in caplog.text
