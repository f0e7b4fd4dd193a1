"""The periodic jobs of the service."""

from __future__ import annotations

from handlers.planning._leases import expire_task_leases

from fleetbus.bus.transaction import Transaction
from fleetbus.config import Settings
from fleetbus.sweeper.sweeper import Job
from persistence import _commit

LEASES_PER_STEP = 200
REQUESTS_PER_STEP = 5_000


def jobs(settings: Settings) -> list[Job]:
    """Every job there is."""

    async def expire_leases(tx: Transaction) -> int:
        emit = tx.emitter("sweeper:task_leases", None)
        return await expire_task_leases(db=tx.db, emit=emit, now=tx.now, limit=LEASES_PER_STEP)

    async def forget_requests(tx: Transaction) -> int:
        return await _commit.forget_requests(
            tx.db, retention=settings.idempotency_retention, limit=REQUESTS_PER_STEP
        )

    return [
        Job("task_leases", expire_leases, settings.sweep_interval, LEASES_PER_STEP),
        Job("idempotency", forget_requests, 10 * settings.sweep_interval, REQUESTS_PER_STEP),
    ]
