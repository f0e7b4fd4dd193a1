"""What a claim takes: the next tasks that are ready, locked, each with what surrounds it.

Of each category as many as may be needed are read in their order, from an index of what is ready;
these are merged and locked one after the other until there are enough. So a claim walks what it
may take and nothing else, whatever its filters and however much there is besides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple
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
    true,
    union_all,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage import Compiled, columns, compiled, fetch, present
from contracts.planning.tasks import ClaimedTask, ClaimTasks, Task
from persistence.planning.tables import phase, task
from persistence.planning.task_context import AROUND, claimed_task
from persistence.planning.task_readiness import READY

NEAR = 16
"""How many tasks of each category a first look considers beyond those that are wanted."""

_ORDER = (task.c.priority_rank, task.c.position, task.c.created_at, task.c.id)


class Filters(NamedTuple):
    """What the text of a statement depends on."""

    categories: int
    in_initiative: bool
    in_phase: bool


class Look(NamedTuple):
    """What a look found, and whether there may be more behind what it considered."""

    found: list[ClaimedTask | None]
    further: bool


async def take_first(
    db: AsyncConnection, claim: ClaimTasks, changes: Mapping[str, Any], *, now: datetime
) -> ClaimedTask | None:
    """Lock the next task and change it at once, a version and an attempt on; with its context.

    None where nothing is ready, or where it was changed between being seen and being locked.
    """
    statement = _take_first(_filters(claim), changed=tuple(changes))
    rows = await fetch(db, statement, {**_values(claim, ()), **changes, "now": now})
    return claimed_task(rows[0]) if rows else None


async def lock_ready(
    db: AsyncConnection, claim: ClaimTasks, *, limit: int, besides: Iterable[UUID], window: int
) -> Look:
    """Lock the next tasks that are ready and that nobody has locked; of each category the first
    ``window`` are considered.

    None stands for a task that was changed after it was seen: what was read of it is old by now.
    """
    statement = _lock_ready(_filters(claim), at_most=1 << (limit - 1).bit_length(), window=window)
    rows = await fetch(db, statement, {**_values(claim, besides), "limit": limit})
    found = [None if row["id"] is None else claimed_task(row) for row in rows if row["locked_id"]]
    return Look(found, further=rows[0]["considered"] >= window)


def window(wanted: int) -> int:
    """How many tasks of each category are considered first where so many are wanted."""
    return 1 << (wanted + NEAR - 1).bit_length()


def _filters(claim: ClaimTasks) -> Filters:
    return Filters(
        len(set(claim.categories)), claim.initiative_id is not None, claim.phase_id is not None
    )


def _values(claim: ClaimTasks, besides: Iterable[UUID]) -> dict[str, Any]:
    return {
        "initiative_id": claim.initiative_id,
        "phase_id": claim.phase_id,
        "besides": list(besides),
        **{f"category_{n}": name for n, name in enumerate(sorted(set(claim.categories)))},
    }


@cache
def _take_first(filters: Filters, *, changed: tuple[str, ...]) -> Compiled:
    candidates = _candidates(filters, window(1))
    locked = _locked(candidates, 1).cte("locked")
    return compiled(
        update(task)
        .where(*_unchanged(locked))
        .values({name: bindparam(name, type_=task.c[name].type) for name in changed})
        .values({name: task.c[name] + literal_column("1") for name in ("version", "attempt")})
        .values(updated_at=bindparam("now", type_=task.c.updated_at.type))
        .returning(*columns(Task).selected_columns, *AROUND)
    )


@cache
def _lock_ready(filters: Filters, *, at_most: int, window: int) -> Compiled:
    candidates = _candidates(filters, window)
    # Rows are locked as they are asked for: no more than the limit.
    ready = _locked(candidates, at_most).subquery()
    locked = select(ready).limit(bindparam("limit", type_=Integer)).cte("locked")
    considered = select(func.count()).select_from(candidates).scalar_subquery()
    always = select(considered.label("considered")).subquery("always")
    found = locked.outerjoin(task, and_(*_unchanged(locked)))
    return compiled(
        columns(Task)
        .add_columns(*AROUND, always.c.considered, locked.c.id.label("locked_id"))
        .select_from(always.outerjoin(found, true()))
        .order_by(*_ORDER)
    )


def _candidates(filters: Filters, window: int) -> CTE:
    """The first ready tasks of each category, merged."""
    within = []
    mine = bindparam("initiative_id", type_=Uuid)
    if filters.in_phase:
        this = bindparam("phase_id", type_=Uuid)
        within.append(task.c.in_phase_id == this)
        if filters.in_initiative:
            # All that is in a phase is of its initiative: of any other there is nothing to walk.
            its = select(phase.c.initiative_id).where(phase.c.id == this).scalar_subquery()
            within.append(its == mine)
    elif filters.in_initiative:
        within.append(task.c.initiative_id == mine)
    each = [
        select(*_ORDER)
        .where(READY, task.c.category == bindparam(f"category_{n}", type_=Text))
        .where(*within, *present(Task))
        .order_by(*_ORDER)
        # Written into the text, so that the plan of a prepared statement is made for few rows.
        .limit(literal_column(str(window)))
        .subquery()
        for n in range(filters.categories)
    ]
    merged = union_all(*(select(*one.c) for one in each))
    names: list[ColumnElement[Any]] = [literal_column(str(n)) for n in range(1, len(_ORDER) + 1)]
    return merged.order_by(*names).cte("candidates")


def _locked(candidates: CTE, limit: int) -> Select[Any]:
    """The first of these that nobody has locked, and that are ready when they are locked."""
    one = (
        select(task.c.id, task.c.version)
        .where(
            task.c.id == candidates.c.id,
            READY,
            task.c.id != func.all(bindparam("besides", type_=ARRAY(Uuid))),
        )
        .with_for_update(of=task, key_share=True, skip_locked=True)
        .lateral("one")
    )
    locked = select(one.c.id, one.c.version).select_from(candidates.join(one, true()))
    return locked.limit(literal_column(str(limit)))


def _unchanged(locked: CTE) -> tuple[ColumnElement[bool], ...]:
    """Locking returns a row as it is by then, reading it as it was when the statement began."""
    return task.c.id == locked.c.id, task.c.version == locked.c.version
