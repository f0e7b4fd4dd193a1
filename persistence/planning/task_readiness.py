"""Which tasks are ready: the definition, and the columns of ``planning.tasks`` that hold it.

- ``held``: the task depends on one that is not completed, or its parent is blocked or held.
- ``in_phase_id``: its phase, or else the one that its parent is in.
- ``underway``: that phase, if there is one, is in progress, and its initiative, if any, is active.
  Not kept of completed tasks: they never become ready.

Kept in the transaction that changes what they follow from. Whoever does so locks the task first
and then looks, in a later statement, so that of two who do so at once the second sees what the
first did. What is only being created cannot be locked: whoever creates a task, or moves one into a
phase, locks its parent, phase and initiative FOR SHARE instead, and whoever changes those waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

from asyncpg import Record
from sqlalchemy import (
    ARRAY,
    Uuid,
    and_,
    bindparam,
    func,
    literal_column,
    not_,
    select,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage import Compiled, columns, compiled, entity_from, fetch, numbered, part, text_of
from contracts.planning.tasks import Task
from persistence.planning.tables import task
from persistence.planning.task_graph import TASK_GRAPH

# Written into the text: a plan for any value of a parameter could not use the partial indexes.
READY = and_(task.c.status == literal_column("'pending'"), not_(task.c.held), task.c.underway)
"""Whether a task is ready; the same as in the indexes."""

_IDS = bindparam("ids", type_=ARRAY(Uuid))

_FIELDS = ", ".join(f"t.{column.name}" for column in columns(Task).selected_columns)

_WAITS = text_of(TASK_GRAPH.waits(literal_column("t.id")))

_UNDERWAY = """(f.id IS NULL OR f.status = 'in_progress')
    AND (i.id IS NULL OR i.status = 'active')"""

# The tasks named and, where what they hand down changes, their children. One that is reached in
# several ways follows from the way that began furthest above it: all of that was looked at anew.
TRUTH = f"""
    WITH RECURSIVE {{before}} reached AS (
        SELECT t.id, t.status, t.initiative_id, 0 AS depth, t.held AS was_held,
               t.in_phase_id AS was_in_phase_id,
               COALESCE(p.held OR p.status = 'blocked', false) OR {{waits}} AS held,
               COALESCE(t.phase_id, p.in_phase_id) AS in_phase_id
        FROM planning.tasks t LEFT JOIN planning.tasks p ON p.id = t.parent_task_id
        WHERE {{named}}
        UNION ALL
        SELECT t.id, t.status, t.initiative_id, r.depth + 1, t.held, t.in_phase_id,
               r.held OR r.status = 'blocked' OR {{waits}}, COALESCE(t.phase_id, r.in_phase_id)
        FROM reached r JOIN planning.tasks t ON t.parent_task_id = r.id
        WHERE {{further}}
    ), truth AS (
        SELECT DISTINCT ON (r.id) r.id, r.held, r.in_phase_id, {_UNDERWAY} AS underway
        FROM reached r
        LEFT JOIN planning.phases f ON f.id = r.in_phase_id
        LEFT JOIN planning.initiatives i ON i.id = r.initiative_id
        ORDER BY r.id, r.depth DESC
    )
"""

WRITE = """
    UPDATE planning.tasks t
    SET held = truth.held, in_phase_id = truth.in_phase_id, underway = truth.underway
    FROM truth
    WHERE t.id = truth.id AND (t.held, t.in_phase_id, t.underway)
        IS DISTINCT FROM (truth.held, truth.in_phase_id, truth.underway)
"""

_IS_READY = "{0}.status = 'pending' AND NOT {0}.held AND {0}.underway"

_BECAME = f"""
    RETURNING {_FIELDS}, {_IS_READY.format("old")} AS was_ready, {_IS_READY.format("new")} AS ready
"""

NAMED = "t.id = ANY (CAST(:ids AS uuid[]))"
FURTHER = "(r.held, r.in_phase_id) IS DISTINCT FROM (r.was_held, r.was_in_phase_id)"

_REFRESH = numbered(
    TRUTH.format(before="", waits=_WAITS, named=NAMED, further=FURTHER)
    + f", written AS ({WRITE} {_BECAME})"
    + " SELECT truth.id AS reached, written.* FROM truth LEFT JOIN written ON written.id = truth.id"
)

ALL = (
    TRUTH.format(before="", waits=_WAITS, named="t.parent_task_id IS NULL", further="true") + WRITE
)
"""Keeps everything right, whatever was changed before."""

_IN_PHASES = "t.in_phase_id = ANY (CAST(:ids AS uuid[]))"
_IN_INITIATIVES = "t.initiative_id = ANY (CAST(:ids AS uuid[]))"
_OPEN = "t.status <> 'completed'"

# What somebody works on comes before what is pending: so does whoever completes a task before
# looking at what waited for it.
_IN_TURN = "ORDER BY t.status = 'pending', t.id FOR NO KEY UPDATE OF t"

_REFRESH_WITHIN = """
    WITH truth AS (
        SELECT t.id, {underway} AS underway
        FROM planning.tasks t
        LEFT JOIN planning.phases f ON f.id = t.in_phase_id
        LEFT JOIN planning.initiatives i ON i.id = t.initiative_id
        WHERE {within} AND {open}
    )
    UPDATE planning.tasks t SET underway = truth.underway
    FROM truth WHERE t.id = truth.id AND t.underway <> truth.underway
    {became}
"""


def _locking(named: str) -> Compiled:
    return numbered(f"SELECT t.id FROM planning.tasks t WHERE {named} {_IN_TURN}")


def _within(named: str) -> tuple[Compiled, Compiled]:
    """What locks the tasks in phases or initiatives, and what looks at them then."""
    refresh = _REFRESH_WITHIN.format(underway=_UNDERWAY, within=named, open=_OPEN, became=_BECAME)
    return _locking(f"{named} AND {_OPEN}"), numbered(refresh)


_LOCK = _locking(NAMED)
_LOCK_DEPENDENTS = _locking(f"t.id IN ({part(TASK_GRAPH.have_dependents)})")
_LOCK_CHILDREN = _locking("t.parent_task_id = ANY (CAST(:ids AS uuid[]))")
_LOCK_HELD_CHILDREN = _locking("t.parent_task_id = ANY (CAST(:ids AS uuid[])) AND t.held")
_WITHIN_PHASES = _within(_IN_PHASES)
_WITHIN_INITIATIVES = _within(_IN_INITIATIVES)

_HOLD_PHASES = numbered("""
    SELECT f.id FROM planning.phases f WHERE f.id IN (
        SELECT COALESCE(t.phase_id, p.in_phase_id)
        FROM planning.tasks t LEFT JOIN planning.tasks p ON p.id = t.parent_task_id
        WHERE t.id = ANY (CAST(:ids AS uuid[]))
    ) ORDER BY f.id FOR SHARE
""")

_READY_AMONG = compiled(columns(Task).where(READY, task.c.id == func.any(_IDS)).order_by(task.c.id))

HAVE_CHILDREN = compiled(select(task.c.id).where(task.c.parent_task_id == func.any(_IDS)))
"""What is right below any of ``ids``."""

HELD_BACK_BY_NOTHING = numbered("""
    SELECT t.id FROM planning.tasks t
    WHERE t.id = ANY (CAST(:ids AS uuid[])) AND NOT t.held AND t.underway
    UNION ALL
    SELECT t.id FROM planning.tasks t
    WHERE t.parent_task_id = ANY (CAST(:ids AS uuid[])) AND t.held
""")
"""Those of ``ids`` that are ready once they are pending, and what may be once they are."""

ARE_IN_PHASES = numbered(f"SELECT t.id FROM planning.tasks t WHERE {_IN_PHASES} AND {_OPEN}")
"""What is not completed in any phase of ``ids``."""

ARE_IN_INITIATIVES = numbered(
    f"SELECT t.id FROM planning.tasks t WHERE {_IN_INITIATIVES} AND {_OPEN}"
)
"""What is not completed in any initiative of ``ids``."""


async def refresh(db: AsyncConnection, ids: Iterable[UUID]) -> list[Task]:
    """Look anew at these tasks and what is below them; returns those that became ready."""
    return await _refresh(db, await _ids(db, _LOCK, ids))


async def refresh_dependents(db: AsyncConnection, ids: Iterable[UUID]) -> list[Task]:
    """The same for what depends on these locked tasks."""
    return await _refresh(db, await _ids(db, _LOCK_DEPENDENTS, ids))


async def refresh_children(
    db: AsyncConnection, ids: Iterable[UUID], *, held: bool = False
) -> list[Task]:
    """The same for what is right below these locked tasks; ``held``: only for what was held."""
    return await _refresh(db, await _ids(db, _LOCK_HELD_CHILDREN if held else _LOCK_CHILDREN, ids))


async def refresh_moved(db: AsyncConnection, ids: Iterable[UUID]) -> list[Task]:
    """The same for locked tasks that are in another phase than before."""
    moved = list(ids)
    await fetch(db, _HOLD_PHASES, {"ids": moved})
    return await _refresh(db, moved)


async def refresh_in_phases(db: AsyncConnection, ids: Iterable[UUID]) -> list[Task]:
    """Look anew at what is in these locked phases; returns what became ready."""
    return await _refresh_within(db, *_WITHIN_PHASES, ids)


async def refresh_in_initiatives(db: AsyncConnection, ids: Iterable[UUID]) -> list[Task]:
    """The same for what is in these locked initiatives."""
    return await _refresh_within(db, *_WITHIN_INITIATIVES, ids)


async def ready_among(db: AsyncConnection, ids: Iterable[UUID]) -> list[Task]:
    """Those of these tasks that are ready."""
    rows = await fetch(db, _READY_AMONG, {"ids": list(ids)})
    return [entity_from(Task, row) for row in rows]


async def _ids(db: AsyncConnection, statement: Compiled, ids: Iterable[UUID]) -> list[UUID]:
    return [row["id"] for row in await fetch(db, statement, {"ids": list(ids)})]


async def _refresh(db: AsyncConnection, ids: Sequence[UUID]) -> list[Task]:
    """Look at locked tasks; what turns out to be reached through them is locked and looked at."""
    locked: set[UUID] = set()
    were: dict[UUID, bool] = {}
    became: dict[UUID, Task] = {}
    left = list(ids)
    while left:
        locked.update(left)
        rows = await fetch(db, _REFRESH, {"ids": left})
        for row in rows:
            if row["id"] is not None:
                _note(row, were, became)
        further = {row["reached"] for row in rows} - locked
        left = await _ids(db, _LOCK, further) if further else []
    return [became[id_] for id_ in sorted(became)]


async def _refresh_within(
    db: AsyncConnection, locking: Compiled, refreshing: Compiled, ids: Iterable[UUID]
) -> list[Task]:
    values = {"ids": list(ids)}
    if not await fetch(db, locking, values):
        return []
    were: dict[UUID, bool] = {}
    became: dict[UUID, Task] = {}
    for row in await fetch(db, refreshing, values):
        _note(row, were, became)
    return [became[id_] for id_ in sorted(became)]


def _note(row: Record, were: dict[UUID, bool], became: dict[UUID, Task]) -> None:
    id_ = row["id"]
    if row["ready"] and not were.setdefault(id_, row["was_ready"]):
        became[id_] = entity_from(Task, row)
    else:
        became.pop(id_, None)
