"""An outage longer than a lease: nobody is crashed for what nobody could have done."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.agents.agents import Agent, FinishAgent, GetAgent, Heartbeat, RegisterAgent
from contracts.planning.tasks import ClaimTasks, CreateTask, GetTask, RenewTask, Task
from fleetbus.bus.registry import Registry
from fleetbus.client import Bus, connect
from fleetbus.config import Settings
from fleetbus.embedded.nats import EmbeddedNats
from fleetbus.embedded.postgres import EmbeddedPostgres
from fleetbus.endings import end
from fleetbus.service import Service
from fleetbus.sweeper.liveness import OUTAGE_AFTER, Liveness
from fleetbus.sweeper.sweeper import Sweeper, tasks
from tests.agents.making import Outbox, types
from tests.bus.asking import eventually
from tests.bus.outages import frozen
from tests.servers import connection_to, migrate

LEASE = timedelta(seconds=30)
CLAIM = timedelta(seconds=45)
JOBS = ("expire_agent_leases", "expire_task_leases")


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
    work = {task.name: task for task in tasks(service.registry, settings)}
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
        before = await types(outbox)
        await pass_by(db, seconds, served=False)
        assert await sweep(service) == 0

        await beat(service)

        since = (await pulse(db)).restored_at
        assert await leases(bus, agent.id, task.id) == (since + LEASE, since + CLAIM)
        assert await sweep(service) == 0
        found = await bus.call(GetAgent(id=agent.id))
        assert (found.version, found.status) == (agent.version, "idle")
        assert (await bus.call(GetTask(id=task.id))).version == task.version
        assert await types(outbox) == before

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


class Working:
    """An agent that says every half a second that it lives, whatever becomes of that."""

    def __init__(self, bus: Bus, agent: Agent) -> None:
        self.bus, self.id = bus, agent.id
        self._beating = asyncio.create_task(self._beat())

    async def _beat(self) -> None:
        while True:
            try:
                await self.bus.call(Heartbeat(id=self.id, incarnation=1), timeout=0.4)
            except Exception:  # noqa: BLE001  an outage; what counts is what is stored
                await asyncio.sleep(0.2)
            else:
                await asyncio.sleep(0.5)

    async def status(self) -> str:
        return (await self.bus.call(GetAgent(id=self.id), timeout=30)).status

    async def fall_silent(self) -> None:
        await end(self._beating)


@asynccontextmanager
async def working(url: str) -> AsyncIterator[Working]:
    """An agent with a lease of three seconds."""
    async with connect(url, timeout=30, attempt_timeout=0.4) as bus:
        made = Working(bus, await bus.call(RegisterAgent(heartbeat_interval_s=1)))
        try:
            yield made
        finally:
            await made.fall_silent()


@asynccontextmanager
async def sweeping(settings: Settings, registry: Registry, **how: Any) -> AsyncIterator[Service]:
    service = Service(settings.model_copy(update={"sweeper": True, "relay": False} | how), registry)
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


def freeze(seconds: float) -> None:
    """Stand still as a process does on a machine that stands still."""
    time.sleep(seconds)


LONGER_THAN_A_LEASE = 4.0


async def is_swept(db: AsyncConnection, seconds: float) -> None:
    """Wait until the sweeper has looked at leases for so long."""
    last = text("SELECT last_run_at FROM bus.sweeps WHERE job = 'expire_agent_leases'")
    until = (await db.execute(text("SELECT now()"))).scalar_one() + timedelta(seconds=seconds)

    async def looked() -> bool:
        at = (await db.execute(last)).scalar_one_or_none()
        return at is not None and at > until

    await eventually(looked)


async def restored_after(db: AsyncConnection, before: datetime) -> None:
    """Wait until what was live holds anew."""

    async def restored() -> bool:
        at = (await pulse(db)).restored_at
        return at is not None and at > before

    await eventually(restored)


async def is_crashed(bus: Bus, agent: UUID) -> bool:
    return (await bus.call(GetAgent(id=agent))).status == "crashed"


class TestOutages:
    """With processes and servers that are really away."""

    async def test_the_handlers_are_away(
        self, settings: Settings, registry: Registry, nats_url: str, db: AsyncConnection
    ) -> None:
        async with sweeping(settings, registry), working(nats_url) as agent:
            await is_swept(db, 0.5)
            agent_id = agent.id
        async with connect(nats_url) as bus:
            freeze(LONGER_THAN_A_LEASE)
            async with sweeping(settings, registry):
                await is_swept(db, 1)
                back = Working(bus, await bus.call(GetAgent(id=agent_id)))
                await is_swept(db, 3)
                assert await back.status() == "idle"
                await back.fall_silent()
                await eventually(lambda: is_crashed(bus, agent_id))

    async def test_the_bus_is_away(
        self,
        settings: Settings,
        registry: Registry,
        own_nats: EmbeddedNats,
        db: AsyncConnection,
    ) -> None:
        async with (
            sweeping(settings, registry, nats_url=own_nats.url),
            working(own_nats.url) as agent,
        ):
            await own_nats.stop()
            before = (await pulse(db)).served_at
            await is_swept(db, LONGER_THAN_A_LEASE)
            assert (await pulse(db)).served_at < before + timedelta(seconds=OUTAGE_AFTER)
            await own_nats.start()
            await restored_after(db, before)
            await is_swept(db, 3)
            assert await agent.status() == "idle"

    async def test_the_bus_stands_still(
        self,
        settings: Settings,
        registry: Registry,
        own_nats: EmbeddedNats,
        db: AsyncConnection,
    ) -> None:
        async with (
            sweeping(settings, registry, nats_url=own_nats.url),
            working(own_nats.url) as agent,
        ):
            before = (await pulse(db)).served_at
            with frozen(own_nats.pid):
                await is_swept(db, LONGER_THAN_A_LEASE)
            await restored_after(db, before)
            await is_swept(db, 3)
            assert await agent.status() == "idle"

    async def test_the_machine_stands_still(
        self, settings: Settings, registry: Registry, own_postgres: EmbeddedPostgres, nats_url: str
    ) -> None:
        await migrate(own_postgres.url)
        url = own_postgres.url
        async with (
            sweeping(settings, registry, database_url=url),
            working(nats_url) as agent,
            connection_to(url) as db,
        ):
            await is_swept(db, 0.5)
            before = (await pulse(db)).served_at
            with frozen(own_postgres.pid):
                freeze(LONGER_THAN_A_LEASE)
            await restored_after(db, before)
            await is_swept(db, 3)
            assert await agent.status() == "idle"
            await agent.fall_silent()
            await eventually(lambda: is_crashed(agent.bus, agent.id))

    async def test_the_database_is_away(
        self, settings: Settings, registry: Registry, own_postgres: EmbeddedPostgres, nats_url: str
    ) -> None:
        await migrate(own_postgres.url)
        url = own_postgres.url
        async with sweeping(settings, registry, database_url=url), working(nats_url) as agent:
            async with connection_to(url) as db:
                await is_swept(db, 0.5)
                before = (await pulse(db)).served_at
            await own_postgres.stop("immediate")
            await asyncio.sleep(LONGER_THAN_A_LEASE)
            await own_postgres.start()
            async with connection_to(url) as db:
                await restored_after(db, before)
                await is_swept(db, 3)
            assert await agent.status() == "idle"

    async def test_a_table_is_locked(
        self,
        settings: Settings,
        registry: Registry,
        nats_url: str,
        database_url: str,
        db: AsyncConnection,
    ) -> None:
        async with sweeping(settings, registry), working(nats_url) as agent:
            await is_swept(db, 0.5)
            before = (await pulse(db)).served_at
            async with connection_to(database_url) as holder:
                await holder.execute(text("BEGIN"))
                await holder.execute(text("LOCK TABLE agents.agents IN ACCESS EXCLUSIVE MODE"))
                await asyncio.sleep(LONGER_THAN_A_LEASE)
            await restored_after(db, before)
            await is_swept(db, 3)
            assert await agent.status() == "idle"
