"""What a claim takes: the next tasks that are ready, locked, each with what surrounds it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from uuid import UUID

from sqlalchemy import ARRAY, Integer, Text, Uuid, and_, bindparam, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.planning.tasks import ClaimedTask, ClaimTasks, Task
from persistence._driver import Compiled, compiled, fetch
from persistence._entities import columns
from persistence.planning._task_context import AROUND, claimed_task
from persistence.planning.tables import task
from persistence.planning.tasks import READY

_ORDER = (task.c.priority_rank, task.c.position, task.c.created_at, task.c.id)


async def lock_ready(
    db: AsyncConnection, claim: ClaimTasks, *, limit: int, besides: Iterable[UUID]
) -> list[ClaimedTask | None]:
    """Lock the next tasks that are ready as this statement sees them and that nobody has locked.

    None stands for a task that was changed after it was seen: it may wait for another one by now.
    The others remain as they are, since whoever adds a dependency changes the task.
    """
    statement = _lock_ready(
        in_initiative=claim.initiative_id is not None,
        in_phase=claim.phase_id is not None,
        at_most=1 << (limit - 1).bit_length(),
    )
    values = {
        "categories": claim.categories,
        "initiative_id": claim.initiative_id,
        "phase_id": claim.phase_id,
        "besides": list(besides),
        "limit": limit,
    }
    rows = await fetch(db, statement, values)
    return [None if row["id"] is None else claimed_task(row) for row in rows]


@cache
def _lock_ready(*, in_initiative: bool, in_phase: bool, at_most: int) -> Compiled:
    where = [
        READY,
        task.c.category == func.any(bindparam("categories", type_=ARRAY(Text))),
        task.c.id != func.all(bindparam("besides", type_=ARRAY(Uuid))),
    ]
    if in_initiative:
        where.append(task.c.initiative_id == bindparam("initiative_id", type_=Uuid))
    if in_phase:
        where.append(task.c.phase_id == bindparam("phase_id", type_=Uuid))
    ready = (
        select(task.c.id, task.c.version)
        .where(*where)
        .order_by(*_ORDER)
        # Written into the text, so that the plan of a prepared statement is made for few rows.
        .limit(literal_column(str(at_most)))
        .with_for_update(of=task, key_share=True, skip_locked=True)
        .subquery()
    )
    # Rows are locked as they are asked for: no more than this.
    locked = select(ready).limit(bindparam("limit", type_=Integer)).cte("locked")
    # Locking returns a row as it is by then, reading it as it was when the statement began.
    unchanged = and_(task.c.id == locked.c.id, task.c.version == locked.c.version)
    return compiled(
        columns(Task)
        .add_columns(*AROUND)
        .select_from(locked.outerjoin(task, unchanged))
        .order_by(*_ORDER)
    )
