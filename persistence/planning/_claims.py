"""What a claim takes: the next tasks that are ready, locked, each with what surrounds it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    CTE,
    ColumnElement,
    Integer,
    Select,
    Text,
    Uuid,
    and_,
    bindparam,
    func,
    literal_column,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.planning.tasks import ClaimedTask, ClaimTasks, Task
from persistence._driver import Compiled, compiled, fetch
from persistence._entities import columns
from persistence.planning._task_context import AROUND, claimed_task
from persistence.planning.tables import task
from persistence.planning.tasks import READY

_ORDER = (task.c.priority_rank, task.c.position, task.c.created_at, task.c.id)


async def take_first(
    db: AsyncConnection, claim: ClaimTasks, changes: Mapping[str, Any], *, now: datetime
) -> ClaimedTask | None:
    """Lock the next task and change it at once, a version and an attempt on; with its context.

    None where nothing is ready, or where it was changed between being seen and being locked.
    """
    statement = _take_first(
        in_initiative=claim.initiative_id is not None,
        in_phase=claim.phase_id is not None,
        changed=tuple(changes),
    )
    rows = await fetch(db, statement, {**_filters(claim, ()), **changes, "now": now})
    return claimed_task(rows[0]) if rows else None


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
    rows = await fetch(db, statement, {**_filters(claim, besides), "limit": limit})
    return [None if row["id"] is None else claimed_task(row) for row in rows]


def _filters(claim: ClaimTasks, besides: Iterable[UUID]) -> dict[str, Any]:
    return {
        "categories": claim.categories,
        "initiative_id": claim.initiative_id,
        "phase_id": claim.phase_id,
        "besides": list(besides),
    }


@cache
def _take_first(*, in_initiative: bool, in_phase: bool, changed: tuple[str, ...]) -> Compiled:
    locked = _next(1, in_initiative=in_initiative, in_phase=in_phase).cte("locked")
    return compiled(
        update(task)
        .where(*_unchanged(locked))
        .values({name: bindparam(name, type_=task.c[name].type) for name in changed})
        .values({name: task.c[name] + literal_column("1") for name in ("version", "attempt")})
        .values(updated_at=bindparam("now", type_=task.c.updated_at.type))
        .returning(*columns(Task).selected_columns, *AROUND)
    )


@cache
def _lock_ready(*, in_initiative: bool, in_phase: bool, at_most: int) -> Compiled:
    # Rows are locked as they are asked for: no more than the limit.
    ready = _next(at_most, in_initiative=in_initiative, in_phase=in_phase).subquery()
    locked = select(ready).limit(bindparam("limit", type_=Integer)).cte("locked")
    return compiled(
        columns(Task)
        .add_columns(*AROUND)
        .select_from(locked.outerjoin(task, and_(*_unchanged(locked))))
        .order_by(*_ORDER)
    )


def _next(limit: int, *, in_initiative: bool, in_phase: bool) -> Select[UUID, int]:
    where = [
        READY,
        task.c.category == func.any(bindparam("categories", type_=ARRAY(Text))),
        task.c.id != func.all(bindparam("besides", type_=ARRAY(Uuid))),
    ]
    if in_initiative:
        where.append(task.c.initiative_id == bindparam("initiative_id", type_=Uuid))
    if in_phase:
        where.append(task.c.phase_id == bindparam("phase_id", type_=Uuid))
    return (
        select(task.c.id, task.c.version)
        .where(*where)
        .order_by(*_ORDER)
        # Written into the text, so that the plan of a prepared statement is made for few rows.
        .limit(literal_column(str(limit)))
        .with_for_update(of=task, key_share=True, skip_locked=True)
    )


def _unchanged(locked: CTE) -> tuple[ColumnElement[bool], ...]:
    """Locking returns a row as it is by then, reading it as it was when the statement began."""
    return task.c.id == locked.c.id, task.c.version == locked.c.version
