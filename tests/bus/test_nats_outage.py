"""NATS goes away and comes back: the service serves again, its relay and sweeper live on."""

import asyncio
import logging
from collections.abc import AsyncIterator
from functools import partial

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.running.registry import Registry
from contracts.planning.tasks import TaskCompleted
from fleetbus.client import connect
from fleetbus.embedded.nats import EmbeddedNats
from fleetbus.server.service import Service
from tests.bus.asking import NOTE, Asker, add_tasks, asking, column_of, eventually
from tests.bus.outages import serving


@pytest.fixture
async def own_service(
    own_nats: EmbeddedNats, database_url: str, registry: Registry
) -> AsyncIterator[Service]:
    sweeping = {"sweeper": True, "sweep_interval": 0.05}
    async with serving(registry, database_url, own_nats.url, **sweeping) as service:
        yield service


@pytest.fixture
async def ask(own_service: Service) -> AsyncIterator[Asker]:
    async with asking(own_service.settings.nats_url) as asker:
        yield asker


async def restart(nats: EmbeddedNats, service: Service) -> None:
    await nats.kill()
    await eventually(lambda: not service.client.is_connected)
    await nats.start()
    await eventually(lambda: service.client.is_connected)


async def last_sweep(db: AsyncConnection) -> object:
    return (await db.execute(text("SELECT max(last_run_at) FROM bus.sweeps"))).scalar_one()


class TestKilled:
    async def test_it_serves_again_and_says_so(
        self,
        ask: Asker,
        own_service: Service,
        own_nats: EmbeddedNats,
        db: AsyncConnection,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        [task] = await add_tasks(db)
        with caplog.at_level(logging.INFO, "fleetbus.wire"):
            for _ in range(2):
                await restart(own_nats, own_service)
                await eventually(lambda: ask.client.is_connected)
                await eventually(lambda: _answers(ask, str(task)))

        assert "connection to NATS is lost" in caplog.text
        assert caplog.text.count("connected to NATS again") == 2

    async def test_work_in_hand_is_finished_and_its_reply_kept_for_the_retry(
        self, ask: Asker, own_service: Service, own_nats: EmbeddedNats, db: AsyncConnection
    ) -> None:
        [task] = await add_tasks(db)
        await db.execute(text("BEGIN"))
        await db.execute(text("SELECT 1 FROM planning.tasks FOR UPDATE"))
        lost = asyncio.create_task(ask(NOTE, {"id": str(task)}, key="k", within=1))
        await eventually(lambda: own_service.dispatcher.stats.in_flight == 1)
        await own_nats.kill()
        await db.execute(text("ROLLBACK"))
        await eventually(lambda: own_service.dispatcher.stats.in_flight == 0)
        await asyncio.gather(lost, return_exceptions=True)

        await own_nats.start()
        await eventually(lambda: own_service.client.is_connected and ask.client.is_connected)
        await eventually(lambda: _answers(ask, str(task), "db.tasks.get"))
        got = await ask(NOTE, {"id": str(task)}, key="k")

        assert (got.status, got.replayed) == (200, True)
        assert await column_of(db, "summary", task) == "."

    async def test_relay_and_sweeper_live_on(
        self, own_service: Service, own_nats: EmbeddedNats, db: AsyncConnection
    ) -> None:
        tasks = await add_tasks(db, 3)
        async with connect(own_nats.url, timeout=20) as bus:
            await eventually(lambda: _complete(bus.nats, tasks[0]))
            await restart(own_nats, own_service)
            swept = await last_sweep(db)
            await eventually(lambda: bus.nats.is_connected)
            for task in tasks[1:]:
                await eventually(partial(_complete, bus.nats, task))

            told = []
            async with asyncio.timeout(15):
                async for event in bus.events(TaskCompleted, durable="all"):
                    told.append(event.task.id)
                    if len(told) == 3:
                        break

        assert told == tasks
        await eventually(lambda: _swept_after(db, swept))


class TestStopped:
    async def test_it_ends_while_it_looks_for_its_server(
        self, own_nats: EmbeddedNats, database_url: str, registry: Registry
    ) -> None:
        async with serving(registry, database_url, own_nats.url) as service:
            await own_nats.kill()
            await eventually(lambda: not service.client.is_connected)

        assert service.client.is_closed
        assert service.database.write.pool.checkedin() == 0  # type: ignore[attr-defined]  # a queue pool


async def _answers(ask: Asker, task: str, subject: str = NOTE, key: str | None = None) -> bool:
    try:
        return (await ask(subject, {"id": task}, key=key, within=1)).status == 200
    except Exception:  # noqa: BLE001  whatever a client is told while its server comes up
        return False


async def _complete(client: object, task: object) -> bool:
    ask = Asker(client)  # type: ignore[arg-type]  # a NATS client
    return await _answers(ask, str(task), "db.tasks.complete", key=str(task))


async def _swept_after(db: AsyncConnection, time: object) -> bool:
    return bool(await last_sweep(db) > time)  # type: ignore[operator]  # two datetimes
