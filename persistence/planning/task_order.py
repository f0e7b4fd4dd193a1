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

from collections.abc import Collection
from typing import Literal, NamedTuple
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage import AdvisoryLock, Order
from persistence.planning.phase_graph import PHASE_GRAPH
from persistence.planning.tables import task
from persistence.planning.task_graph import TASK_GRAPH

_parent = task.alias("parent")

Kind = Literal["task", "gate", "place", "begun", "done", "held"]


class Node(NamedTuple):
    """Something that waits, or is waited for."""

    kind: Kind
    id: UUID


_EDGES = f"""
    {TASK_GRAPH.edges("task")} AND n.kind IN ('task', 'gate', 'place')
    UNION ALL
    SELECT CASE WHEN n.kind = 'gate' OR t.phase_id IS NOT NULL THEN 'gate' ELSE 'place' END,
           t.parent_task_id
    FROM planning.tasks t
    WHERE n.kind IN ('task', 'gate', 'place') AND t.id = n.id AND t.parent_task_id IS NOT NULL
    UNION ALL
    SELECT 'begun', t.phase_id FROM planning.tasks t
    WHERE n.kind IN ('task', 'place') AND t.id = n.id AND t.phase_id IS NOT NULL
    UNION ALL
    {PHASE_GRAPH.edges("done")} AND n.kind = 'begun'
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

ORDER = Order(
    AdvisoryLock("planning.order", "One at a time changes what waits for what in an initiative."),
    _EDGES,
    Node,
)


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
