"""How long a glance at a million runs takes: ``python -m benchmarks.glance``.

An embedded stack, one service in this process, tables filled by a few big statements; each query is
asked over the bus, one after the other, and its median and 99th percentile are printed.
"""

import asyncio
import statistics
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
from rich.console import Console
from rich.table import Table

from bus.contract.operation import Operation
from contracts.health.health import GetDashboard, GetHealthStatus, LastRuns, RunsSince
from contracts.health.model_calls import GetModelUsage
from fleetbus.client import connect
from fleetbus.embedded.stack import EmbeddedStack
from fleetbus.server import migrate
from fleetbus.server.config import Settings
from fleetbus.server.service import Service

ASKED = 200

FILL = (
    """
    INSERT INTO health.test_definitions (id, description)
    SELECT 'd' || n, 'x' FROM generate_series(0, 49) AS n
    """,
    """
    INSERT INTO health.test_runs
        (id, test_definition_id, status, started_at, completed_at, timeout_at, duration_ms)
    SELECT uuidv7(), 'd' || n % 50, CASE WHEN n % 10 = 0 THEN 'failure' ELSE 'success' END,
           now() - n * interval '90 days' / 1000000, now(), now(), n % 1000
    FROM generate_series(1, 1000000) AS n
    """,
    """
    INSERT INTO health.model_calls (id, model, provider, success, tokens, cost_usd, created_at)
    SELECT uuidv7(), 'm' || n % 5, 'p' || n % 2, n % 20 > 0, 100, 0.001,
           now() - n * interval '90 days' / 100000
    FROM generate_series(1, 100000) AS n
    """,
    "VACUUM ANALYZE",
)


def queries() -> dict[str, Operation[Any]]:
    """What is asked."""
    now = datetime.now(UTC)
    return {
        "status, last 100": GetHealthStatus(window=LastRuns(last=100)),
        "status, last 10,000": GetHealthStatus(window=LastRuns(last=10_000)),
        "status, since 1 day": GetHealthStatus(window=RunsSince(since=now - timedelta(days=1))),
        "status, since 89 days": GetHealthStatus(window=RunsSince(since=now - timedelta(days=89))),
        "dashboard, 30 days": GetDashboard(days=30),
        "dashboard, 90 days": GetDashboard(days=90),
        "usage, 90 days": GetModelUsage(days=90),
    }


async def main() -> None:
    """Fill, ask, print."""
    table = Table("query", "p50 ms", "p99 ms")
    async with EmbeddedStack() as stack:
        await migrate.upgrade(stack.postgres.url)
        connection = await asyncpg.connect(stack.postgres.url)
        for statement in FILL:
            await connection.execute(statement)
        await connection.close()
        service = Service(Settings(database_url=stack.postgres.url, nats_url=stack.nats.url))
        await service.start()
        async with connect(stack.nats.url) as bus:
            for name, query in queries().items():
                took = []
                for _ in range(ASKED):
                    began = time.perf_counter()
                    await bus.call(query)
                    took.append((time.perf_counter() - began) * 1000)
                p99 = statistics.quantiles(took, n=100)[98]
                table.add_row(name, f"{statistics.median(took):.2f}", f"{p99:.2f}")
        await service.stop()
    Console().print(table)


if __name__ == "__main__":
    asyncio.run(main())
