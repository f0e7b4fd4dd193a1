"""New tasks: inserted with what follows for their readiness, and related to each other.

What is above a new task is locked for it: nobody changes it unseen (``_task_readiness.py``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CTE,
    ColumnElement,
    FromClause,
    Select,
    Table,
    and_,
    false,
    func,
    literal_column,
    or_,
    select,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage import INSERTED, fetch, numbered, pairs_of, part
from contracts.planning.tasks import Task
from persistence.planning.tables import initiative, phase, task
from persistence.planning.task_graph import TASK_GRAPH
from persistence.planning.task_readiness import FURTHER, NAMED, TRUTH, WRITE

# A statement does not see what it inserts; new tasks have no dependencies but these.
_ADDED = f"""added AS (
    {part(TASK_GRAPH.adding)} RETURNING task_id, depends_on_task_id
),"""
_WAITS = """t.id IN (
    SELECT a.task_id FROM added a JOIN planning.tasks o ON o.id = a.depends_on_task_id
    WHERE o.status <> 'completed'
)"""
_RELATE = numbered(TRUTH.format(before=_ADDED, waits=_WAITS, named=NAMED, further=FURTHER) + WRITE)


async def relate(
    db: AsyncConnection, ids: Iterable[UUID], pairs: Iterable[tuple[UUID, UUID]]
) -> None:
    """Let the first of each pair depend on the second, and look at these tasks: all are new."""
    await fetch(db, _RELATE, {"ids": list(ids), "pairs": pairs_of(pairs)})


def _inserted(rows: FromClause) -> Select[Any]:
    """Rows of new tasks with what follows from what is above them, which is locked for them."""
    given = select(*rows.c).cte("given")
    above = _share(task, select(given.c.parent_task_id), "status", "held", "in_phase_id")
    named = select(given.c.phase_id).union_all(select(above.c.in_phase_id))
    around = _share(phase, named, "status")
    # Last, as whoever completes the last task of a phase comes to its initiative.
    over = _share(initiative, select(given.c.initiative_id), "status", after=around)
    in_phase_id = func.coalesce(given.c.phase_id, above.c.in_phase_id)
    return select(
        *given.c,
        func.coalesce(or_(above.c.held, above.c.status == _word("blocked")), false()).label("held"),
        in_phase_id.label("in_phase_id"),
        and_(
            or_(around.c.id.is_(None), around.c.status == _word("in_progress")),
            or_(over.c.id.is_(None), over.c.status == _word("active")),
        ).label("underway"),
    ).select_from(
        given.outerjoin(above, above.c.id == given.c.parent_task_id)
        .outerjoin(around, around.c.id == in_phase_id)
        .outerjoin(over, over.c.id == given.c.initiative_id)
    )


def _share(source: Table, named: Any, *names: str, after: CTE | None = None) -> CTE:
    """Rows as they are by now, locked FOR SHARE until the transaction ends; after other locks.

    FOR KEY SHARE, which a foreign key takes, would neither keep others from changing them nor tell
    what they have changed.
    """
    found = select(source.c.id, *(source.c[name] for name in names)).where(source.c.id.in_(named))
    if after is not None:
        locked = select(func.count()).select_from(after).scalar_subquery()
        found = found.where(locked >= literal_column("0"))
    found = found.order_by(source.c.id).with_for_update(read=True, of=source)
    return found.cte(f"given_{source.name}")


def _word(status: str) -> ColumnElement[str]:
    return literal_column(f"'{status}'")


INSERTED[Task] = _inserted
