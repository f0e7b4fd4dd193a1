"""A million runs and a hundred thousand calls: by which index a glance at them is answered."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.health.health import GetHealthStatus, LastRuns
from fleetbus.client import Bus
from persistence.health import health
from tests.health.arrange import scalar
from tests.kit.sweeping import Sweep

MILLION = 1_000_000

DEFINITIONS = """
    INSERT INTO health.test_definitions (id, description)
    SELECT 'd' || n, 'x' FROM generate_series(0, 49) AS n
"""
RUNS = """
    INSERT INTO health.test_runs
        (id, test_definition_id, status, started_at, completed_at, timeout_at, duration_ms)
    SELECT uuidv7(), 'd' || n % 50,
           CASE WHEN n % 10 = 0 THEN 'failure' WHEN n % 17 = 0 THEN 'skipped' ELSE 'success' END,
           at, at, at, n % 1000
    FROM (
        SELECT n, now() - n * interval '90 days' / 1000000 AS at
        FROM generate_series(1, 1000000) AS n
    ) AS numbered
"""
CALLS = """
    INSERT INTO health.model_calls (id, model, provider, success, tokens, cost_usd, created_at)
    SELECT uuidv7(), 'm' || n % 5, 'p' || n % 2, n % 20 > 0, 100, 0.001,
           now() - n * interval '90 days' / 100000
    FROM generate_series(1, 100000) AS n
"""


async def indexes(db: AsyncConnection, statement: Any, **values: Any) -> set[str]:
    """The indexes that Postgres answers a statement by; a sequential scan is one of its table."""
    explained = text(f"EXPLAIN (FORMAT JSON) {statement.text}").bindparams(
        *statement._bindparams.values()
    )
    plan = (await db.execute(explained, values)).scalar_one()
    found = set()
    nodes = [plan[0]["Plan"] if not isinstance(plan, str) else json.loads(plan)[0]["Plan"]]
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        if "Index Name" in node:
            found.add(node["Index Name"])
        elif "Relation Name" in node and node["Node Type"] == "Seq Scan":
            found.add(f"all of {node['Relation Name']}")
    return found


async def test_a_glance_at_a_million_runs(bus: Bus, db: AsyncConnection, sweep: Sweep) -> None:
    for statement in (DEFINITIONS, RUNS, CALLS, "VACUUM ANALYZE health.test_runs"):
        await db.execute(text(statement))
    assert await scalar(db, "SELECT count(*) FROM health.test_runs") == MILLION
    await sweep("merge_tallies")
    await db.execute(text("VACUUM ANALYZE health.run_tallies"))
    now = datetime.now(UTC)

    since = now - timedelta(days=89)
    window = {"since": since, "whole": health.whole_hour(since)}
    days = {"first": since.date(), "today": now.date()}
    used = {
        "last": await indexes(db, health._LAST, last=100),
        "since": await indexes(db, health._SINCE, **window),
        "dashboard": await indexes(db, health._DASHBOARD, **window, **days),
    }
    status = await bus.call(GetHealthStatus(window=LastRuns(last=10_000)))
    assert status.total == 10_000
    # Whether something is being deleted is asked as well, of a table that is nearly always empty.
    assert used["last"] - {"pk_deletions", "all of deletions"} == {"ix_test_runs__started_at_id"}
    assert "ix_test_runs__started_at_id" in used["since"]
    assert not any("all of test_runs" in names for names in used.values())
