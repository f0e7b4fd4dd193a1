"""Live while the event loop runs; ready while requests can be answered."""

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.errors import Unavailable
from bus.running.registry import Registry
from contracts.planning.tasks import CreateTask
from fleetbus.client import Bus
from fleetbus.embedded.nats import EmbeddedNats
from fleetbus.embedded.postgres import EmbeddedPostgres
from fleetbus.server.monitoring.monitor import Monitor
from fleetbus.server.service import Service
from tests.bus.outages import frozen, serving
from tests.bus.test_troubles import read_only
from tests.fleetbus.monitoring.asking import get, until_ready, watched
from tests.servers import migrate

ALL_FINE = dict.fromkeys(["nats", "subscriptions", "database", "schema", "drain"], "ok")


async def test_a_running_service_is_live_and_ready(port: int) -> None:
    live, ready = await get(port, "/health/live"), await get(port, "/health/ready")
    assert (live.status, live.json) == (200, {"live": True})
    assert (ready.status, ready.json) == (200, {"ready": True, "checks": ALL_FINE})
    assert ready.headers["Content-Type"] == "application/json"


async def test_before_the_service_runs_the_process_is_live_and_not_ready() -> None:
    monitor = Monitor()
    await monitor.start("127.0.0.1", 0)
    assert monitor.port is not None
    live, ready = await get(monitor.port, "/health/live"), await get(monitor.port, "/health/ready")
    metrics = await get(monitor.port, "/metrics")
    await monitor.stop()
    assert (live.status, ready.status, metrics.status) == (200, 503, 200)
    assert ready.json == {"ready": False, "checks": {"service": "starting"}}


async def test_a_service_that_drains_is_not_ready(service: Service, port: int) -> None:
    service.draining = True
    got = await get(port, "/health/ready")
    assert (got.status, got.json["checks"]["drain"]) == (503, "draining")


async def test_without_subscriptions_it_is_not_ready(service: Service, port: int) -> None:
    await service.wire.drain()
    got = await get(port, "/health/ready")
    assert (got.status, got.json["checks"]["subscriptions"]) == (503, "not subscribed")


class TestSchema:
    async def test_an_older_one_is_not_ready(self, db: AsyncConnection, port: int) -> None:
        await db.execute(text("UPDATE bus.schema_version SET version_num = '0001'"))
        checks = (await until_ready(port, 503))["checks"]
        assert checks["schema"].startswith("at 0001, needs ")

    async def test_a_newer_one_is(self, db: AsyncConnection, port: int) -> None:
        await db.execute(text("UPDATE bus.schema_version SET version_num = '9999'"))
        assert (await until_ready(port, 200))["checks"] == ALL_FINE


class TestOutages:
    async def test_nats_goes_and_comes_back(
        self, database_url: str, own_nats: EmbeddedNats, registry: Registry
    ) -> None:
        async with (
            serving(registry, database_url, own_nats.url) as service,
            watched(service) as port,
        ):
            await until_ready(port, 200)
            await own_nats.stop()
            assert (await until_ready(port, 503))["checks"] == ALL_FINE | {"nats": "not connected"}
            assert (await get(port, "/health/live")).status == 200
            await own_nats.start()
            await until_ready(port, 200)

    async def test_postgres_goes_and_comes_back(
        self, own_postgres: EmbeddedPostgres, nats_url: str, registry: Registry
    ) -> None:
        await migrate(own_postgres.url)
        async with (
            serving(registry, own_postgres.url, nats_url) as service,
            watched(service) as port,
        ):
            await until_ready(port, 200)
            await own_postgres.stop("immediate")
            missing = {"database": "not reachable", "schema": "not known"}
            assert (await until_ready(port, 503))["checks"] == ALL_FINE | missing
            assert (await get(port, "/health/live")).status == 200
            await own_postgres.start()
            await until_ready(port, 200)

    async def test_postgres_is_read_only(
        self, bus: Bus, service: Service, port: int, db: AsyncConnection
    ) -> None:
        async with read_only(db):
            with pytest.raises(Unavailable, match="read-only"):
                await bus.call(CreateTask(name="not made"), timeout=1)
            assert "read-only" in (await until_ready(port, 503))["checks"]["database"]
        assert (await until_ready(port, 200))["checks"] == ALL_FINE

    async def test_postgres_stands_still(
        self, own_postgres: EmbeddedPostgres, nats_url: str, registry: Registry
    ) -> None:
        await migrate(own_postgres.url)
        async with (
            serving(registry, own_postgres.url, nats_url, relay=False) as service,
            watched(service) as port,
        ):
            await until_ready(port, 200)
            assert own_postgres.pid is not None
            with frozen(own_postgres.pid):
                checks = (await until_ready(port, 503))["checks"]
                assert checks["database"] == "not reachable"
                assert (await get(port, "/health/live")).status == 200
            await until_ready(port, 200)
