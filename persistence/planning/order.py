"""The order of a plan: one graph over tasks and phases, in which whatever waits points at what for.

Its nodes:

    task    a task is done: it waits for what it depends on, for what tasks above it depend on and
            for its phase to begin; that is its own, or that of the nearest task above it
    gate    what a task above waits for, on account of one below it that has a phase of its own
    place   the same, and the phase that it is in
    begun   a phase has begun: the phases that it depends on are done
    done    a phase is done: it has begun, and its tasks are done
    held    the tasks below a task that have no phase of their own are done
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import Literal, NamedTuple
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage import AdvisoryLock, fetch, numbered
from persistence.planning.tables import task

ORDER = AdvisoryLock(
    "planning.order", "One at a time changes what waits for what in an initiative."
)

_parent = task.alias("parent")

Kind = Literal["task", "gate", "place", "begun", "done", "held"]


class Node(NamedTuple):
    """Something that waits, or is waited for."""

    kind: Kind
    id: UUID


_EDGES = """
    SELECT CAST('task' AS text) AS kind, d.depends_on_task_id AS id
    FROM planning.task_dependencies d
    WHERE n.kind IN ('task', 'gate', 'place') AND d.task_id = n.id
    UNION ALL
    SELECT CASE WHEN n.kind = 'gate' OR t.phase_id IS NOT NULL THEN 'gate' ELSE 'place' END,
           t.parent_task_id
    FROM planning.tasks t
    WHERE n.kind IN ('task', 'gate', 'place') AND t.id = n.id AND t.parent_task_id IS NOT NULL
    UNION ALL
    SELECT 'begun', t.phase_id FROM planning.tasks t
    WHERE n.kind IN ('task', 'place') AND t.id = n.id AND t.phase_id IS NOT NULL
    UNION ALL
    SELECT 'done', d.depends_on_phase_id FROM planning.phase_dependencies d
    WHERE n.kind = 'begun' AND d.phase_id = n.id
    UNION ALL
    SELECT 'begun', n.id WHERE n.kind = 'done'
    UNION ALL
    SELECT e.kind, t.id
    FROM planning.tasks t, (VALUES ('task'), ('held')) AS e (kind)
    WHERE n.kind = 'done' AND t.phase_id = n.id
    UNION ALL
    SELECT e.kind, t.id
    FROM planning.tasks t, (VALUES ('task'), ('held')) AS e (kind)
    WHERE n.kind = 'held' AND t.parent_task_id = n.id AND t.phase_id IS NULL
"""

# Nothing is returned unless it leads back to where it began: that is the usual case.
_AROUND = numbered(
    f"""
    WITH RECURSIVE
    seeds AS MATERIALIZED (
        SELECT s.kind, s.id
        FROM unnest(CAST(:kinds AS text[]), CAST(:ids AS uuid[])) AS s (kind, id)
    ),
    reached AS (
        SELECT e.kind, e.id FROM seeds n CROSS JOIN LATERAL ({_EDGES}) e
        UNION
        SELECT e.kind, e.id FROM reached n CROSS JOIN LATERAL ({_EDGES}) e
    )
    SELECT n.kind, n.id, e.kind AS on_kind, e.id AS on_id
    FROM (SELECT r.kind, r.id FROM reached r UNION SELECT s.kind, s.id FROM seeds s) n
    CROSS JOIN LATERAL ({_EDGES}) e
    WHERE EXISTS (SELECT FROM reached r JOIN seeds s ON s.kind = r.kind AND s.id = r.id)
    """
)


async def lock(db: AsyncConnection, initiative_id: UUID | None) -> None:
    """Let nobody else change the order of this initiative until the transaction ends."""
    await ORDER.hold(db, initiative_id)


async def around(db: AsyncConnection, seeds: Collection[Node]) -> dict[Node, list[Node]]:
    """What these wait for, directly or not, each with what it waits for itself.

    Nothing if none of it leads back to one of them.
    """
    values = {"kinds": [seed.kind for seed in seeds], "ids": [seed.id for seed in seeds]}
    found: defaultdict[Node, list[Node]] = defaultdict(list)
    for row in await fetch(db, _AROUND, values):
        found[Node(row["kind"], row["id"])].append(Node(row["on_kind"], row["on_id"]))
    return found


async def elsewhere(db: AsyncConnection, ids: Collection[UUID]) -> set[UUID]:
    """Those of these tasks that are in another phase than the task above them says of itself."""
    if not ids:
        return set()
    statement = (
        select(task.c.id)
        .join(_parent, _parent.c.id == task.c.parent_task_id)
        .where(task.c.id == func.any(list(ids)))
        .where(task.c.phase_id.is_distinct_from(_parent.c.phase_id))
    )
    return set((await db.execute(statement)).scalars())
