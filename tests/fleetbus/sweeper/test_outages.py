"""Outages longer than a lease, with processes and servers that are really away."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.kit.aio import end
from bus.running.registry import Registry
from contracts.agents.agents import Agent, GetAgent, Heartbeat, RegisterAgent
from fleetbus.client import Bus, connect
from fleetbus.embedded.nats import EmbeddedNats
from fleetbus.embedded.postgres import EmbeddedPostgres
from fleetbus.server.config import Settings
from fleetbus.server.service import Service
from fleetbus.server.sweeper.liveness import OUTAGE_AFTER
from tests.bus.asking import eventually
from tests.bus.outages import frozen
from tests.fleetbus.sweeper.test_liveness import pulse
from tests.servers import connection_to, migrate


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
