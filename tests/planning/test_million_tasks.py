"""A million tasks that a claim cannot take: it does not walk them, whatever it asks for."""

import json
from collections.abc import Iterator
from itertools import product
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage.driver import Compiled
from contracts.planning.tasks import ClaimTasks, GetTaskQueue
from fleetbus.client import Bus
from persistence.planning import task_claims as _task_claims

MINE, OTHER, EMPTY = (UUID(int=n) for n in (1, 2, 3))
"""Initiatives, and phases: one of each, with the same ids."""

INITIATIVES = """
    INSERT INTO planning.initiatives (id, name)
    SELECT id, 'an initiative' FROM unnest(CAST(:ids AS uuid[])) AS id
"""
PHASES = """
    INSERT INTO planning.phases (id, initiative_id, name, status, position)
    SELECT id, id, 'a phase', 'in_progress', 1 FROM unnest(CAST(:ids AS uuid[])) AS id
"""
# Half of all waits. What is ready is of a category or of a place that is not asked for, and that
# comes before all others.
TASKS = """
    INSERT INTO planning.tasks (
        id, name, priority, position, held, category, initiative_id, phase_id, in_phase_id
    )
    SELECT uuidv7(), 'a task', 'high', n % 1000, n % 2 = 0,
           CASE WHEN n % 4 = 1 THEN 'plan' ELSE 'execute' END, place, place, place
    FROM (
        SELECT n, CAST(CASE WHEN n % 4 = 1 THEN :mine ELSE :other END AS uuid) AS place
        FROM generate_series(1, 1000000) AS n
    ) AS numbered
"""
INDEXES = """
    SELECT indexname, indexdef FROM pg_indexes
    WHERE schemaname = 'planning' AND tablename = 'tasks' AND indexname LIKE 'ix_%'
"""
CLAIMS: dict[str, dict[str, Any]] = {
    "ready beyond counting": {},
    "another category": {"categories": ["verify"]},
    "other categories": {"categories": ["verify", "merge", "review", "refine"]},
    "all categories": {
        "categories": [
            *("execute", "research", "discuss", "plan", "detail", "refine"),
            *("verify", "merge", "review"),
        ]
    },
    "another category of the initiative": {"initiative_id": MINE},
    "another category of the phase": {"phase_id": MINE},
    "nothing in the initiative": {"initiative_id": EMPTY},
    "nothing in the phase": {"phase_id": EMPTY},
    "the initiative has it, the phase not": {"initiative_id": OTHER, "phase_id": MINE},
    "the phase has it, the initiative not": {"initiative_id": MINE, "phase_id": OTHER},
    "both have it": {"initiative_id": OTHER, "phase_id": OTHER},
}
"""What is asked for, by what stands in its way."""

HAND = {"status": "in_progress", "claimed_by": "a", "lease_expires_at": "2026-01-01Z"}


def statements(claim: ClaimTasks) -> Iterator[tuple[Compiled, dict[str, Any]]]:
    filters, values = _task_claims._filters(claim), _task_claims._values(claim, ())
    first = _task_claims._take_first(filters, changed=tuple(HAND))
    yield first, {**values, **HAND, "now": "2026-01-01Z"}
    for limit, window in product((1, 64), (32, 128)):
        look = _task_claims._lock_ready(filters, at_most=limit, window=window)
        yield look, {**values, "limit": limit}


def literal(value: Any) -> str:
    if isinstance(value, list):
        return "'{}'"
    return "NULL" if value is None else f"'{value}'"


async def rows_walked(db: AsyncConnection, statement: Compiled, values: dict[str, Any]) -> int:
    """How many rows of tasks a statement looks at, with the plan that the service runs it by."""
    given = ", ".join(literal(values[name]) for name in statement.order)
    run = db.sync_connection.connection.driver_connection.fetch  # type: ignore[union-attr]  # open
    await run("BEGIN")
    await run("SET LOCAL plan_cache_mode = force_generic_plan")
    await run("SET LOCAL enable_seqscan = off")
    await run(f"PREPARE claim AS {statement.text}")
    [[plan]] = await run(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE claim ({given})")
    await run("ROLLBACK")
    await run("DEALLOCATE claim")
    walked = 0
    nodes = [plan[0]["Plan"] if not isinstance(plan, str) else json.loads(plan)[0]["Plan"]]
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        if node.get("Relation Name") == "tasks" and node["Node Type"] != "ModifyTable":
            seen = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
            walked += int(seen * node["Actual Loops"])
    return walked


async def fill(db: AsyncConnection) -> None:
    """A million tasks; keys and indexes are looked after once they are there."""
    for key in ("initiative_id", "phase_id"):
        await db.execute(text(f"ALTER TABLE planning.tasks DROP CONSTRAINT fk_tasks__{key}"))
    indexes = (await db.execute(text(INDEXES))).all()
    for index in indexes:
        await db.execute(text(f"DROP INDEX planning.{index.indexname}"))
    await db.execute(text(TASKS), {"mine": str(MINE), "other": str(OTHER)})
    for index in indexes:
        await db.execute(text(index.indexdef))


async def most_walked(db: AsyncConnection) -> dict[str, int]:
    most = {}
    for name, given in CLAIMS.items():
        claim = ClaimTasks(agent_id="a", **given)
        most[name] = max([await rows_walked(db, *each) for each in statements(claim)])
    return most


async def test_a_claim_among_a_million_tasks(bus: Bus, db: AsyncConnection) -> None:
    ids = [MINE, OTHER, EMPTY]
    for statement in (INITIATIVES, PHASES):
        await db.execute(text(statement), {"ids": ids})
    await fill(db)

    before = await most_walked(db)
    await db.execute(text("VACUUM ANALYZE planning.tasks"))
    after = await most_walked(db)

    for most in (before, after):
        nothing = {name for name, walked in most.items() if walked == 0}
        assert nothing == {
            *("another category", "other categories"),
            *("another category of the initiative", "another category of the phase"),
            *("nothing in the initiative", "nothing in the phase"),
            *("the initiative has it, the phase not", "the phase has it, the initiative not"),
        }
        # 128 of each category are considered, 64 locked and read; nine categories at most.
        assert max(most.values()) <= 9 * 128 + 4 * 64, most
    queue = await bus.call(GetTaskQueue())
    assert (queue.ready, queue.waiting) == (500_000, 500_000)
