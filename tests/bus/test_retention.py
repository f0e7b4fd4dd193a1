"""Stored replies are forgotten after the retention, in bounded steps."""

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.running.registry import Registry
from bus.storage.own.commit import forget_requests
from fleetbus.server.config import Settings
from fleetbus.server.service import Service
from tests.bus.asking import NOTE, add_tasks, asking, column_of, count_of, eventually

FILL = """
    INSERT INTO bus.requests (caller, key, fingerprint, status, reply, created_at)
    SELECT '', 'k' || n, '', 200, '{}', clock_timestamp() - make_interval(hours => n)
    FROM generate_series(1, 100) AS n
"""


@pytest.fixture
async def requests(db: AsyncConnection) -> None:
    """A hundred stored replies, one for each of the last hundred hours."""
    await db.execute(text(FILL))


@pytest.mark.usefixtures("requests")
class TestForgetRequests:
    async def test_a_step_is_bounded(self, db: AsyncConnection) -> None:
        assert await forget_requests(db, retention=24.5 * 3600, limit=30) == 30
        assert await forget_requests(db, retention=24.5 * 3600, limit=30) == 30
        assert await forget_requests(db, retention=24.5 * 3600, limit=30) == 16
        assert await forget_requests(db, retention=24.5 * 3600, limit=30) == 0
        assert await count_of(db, "bus.requests") == 24

    async def test_the_oldest_go_first(self, db: AsyncConnection) -> None:
        await forget_requests(db, retention=3600, limit=10)

        oldest = await db.execute(text("SELECT key FROM bus.requests ORDER BY created_at LIMIT 1"))
        assert oldest.scalar_one() == "k90"


@pytest.mark.usefixtures("requests")
class TestSweeper:
    async def test_it_forgets_what_is_older_than_the_retention(
        self, settings: Settings, registry: Registry, db: AsyncConnection
    ) -> None:
        sweeping = settings.model_copy(
            update={
                "sweeper": True,
                "sweep_interval": 0.02,
                "idempotency_retention": 50.5 * 3600,
            }
        )
        service = Service(sweeping, registry)
        await service.start()
        try:
            await eventually(lambda: _left(db, 50))
        finally:
            await service.stop()

    async def test_a_forgotten_key_runs_again(
        self, settings: Settings, registry: Registry, db: AsyncConnection
    ) -> None:
        brief = {"sweeper": True, "sweep_interval": 0.02, "idempotency_retention": 0.001}
        service = Service(settings.model_copy(update=brief), registry)
        [task] = await add_tasks(db)
        await service.start()
        try:
            async with asking(settings.nats_url) as ask:
                await ask(NOTE, {"id": str(task)}, key="k")
                await eventually(lambda: _left(db, 0))
                got = await ask(NOTE, {"id": str(task)}, key="k")
        finally:
            await service.stop()

        assert not got.replayed
        assert await column_of(db, "summary", task) == ".."


async def _left(db: AsyncConnection, count: int) -> bool:
    return await count_of(db, "bus.requests") == count
