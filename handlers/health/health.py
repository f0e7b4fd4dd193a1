"""How things are."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.handling import query
from contracts.health.health import (
    Dashboard,
    GetDashboard,
    GetHealthStatus,
    HealthStatus,
    LastRuns,
)
from handlers.health._health_status import health_status
from persistence.health import health


@query
async def get_health_status(query: GetHealthStatus, *, db: AsyncConnection) -> HealthStatus:
    if isinstance(query.window, LastRuns):
        return health_status(await health.count_last(db, query.window.last))

    return health_status(await health.count_since(db, query.window.since))


@query
async def get_dashboard(query: GetDashboard, *, db: AsyncConnection, now: datetime) -> Dashboard:
    return await health.dashboard(db, now=now, days=query.days)
