"""What phases and initiatives hold: whether any of it is left to do.

Two transactions that complete the last two tasks see each other's as open. So a container is looked
at under a lock of its row:

- who asks whether it is over has it FOR UPDATE, and counts in a later statement;
- who says that it is not, because of a task in it that nobody has in hand (``may_be_over``), has it
  FOR KEY SHARE until the transaction ends, and then that task. These neither wait for each other
  nor for other changes. Whoever completes that task meanwhile finds none like it, asks, and has to
  wait;
- who adds to it (``over``) has it FOR SHARE, and so sees what became of it, archived as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from asyncpg import Record
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage import fetch, numbered
from contracts.planning.initiatives import ExecutionMode, InitiativeStatus
from contracts.planning.phases import PhaseStatus


@dataclass(frozen=True)
class Children:
    """What a container holds: tasks of a phase; tasks and phases of an initiative."""

    any: bool
    open: bool
    """Whether anything of it is not completed."""


@dataclass(frozen=True)
class FoundPhase:
    """A locked phase and what it holds."""

    id: UUID
    initiative_id: UUID
    status: PhaseStatus
    mode: ExecutionMode
    tasks: Children


@dataclass(frozen=True)
class FoundInitiative:
    """A locked initiative and what it holds."""

    id: UUID
    status: InitiativeStatus
    children: Children


@dataclass(frozen=True)
class Containers:
    """The ids of phases and of initiatives."""

    phases: set[UUID]
    initiatives: set[UUID]


# A task without a phase of its own is in that of the nearest task above it that has one.
_LINEAGE = """
    lineage AS (
        SELECT t.id, t.phase_id, t.initiative_id, t.parent_task_id
        FROM planning.tasks t WHERE t.id = ANY (CAST(:ids AS uuid[]))
        UNION
        SELECT t.id, t.phase_id, t.initiative_id, t.parent_task_id
        FROM lineage l JOIN planning.tasks t ON t.id = l.parent_task_id
        WHERE l.phase_id IS NULL
    )"""

_IN_NOBODYS_HAND = """
    t.status IN ('pending', 'blocked') AND t.id <> ALL (CAST(:ids AS uuid[]))"""

_LEFT = "t.status IN ('pending', 'in_progress', 'blocked')"

MAY_BE_OVER = numbered(
    f"""
    WITH RECURSIVE {_LINEAGE},
    containers AS MATERIALIZED (
        SELECT DISTINCT l.phase_id, CASE WHEN l.phase_id IS NULL THEN l.initiative_id END
               AS initiative_id
        FROM lineage l
        WHERE l.phase_id IS NOT NULL
           OR (l.parent_task_id IS NULL AND l.initiative_id IS NOT NULL)
    ),
    phases AS MATERIALIZED (
        SELECT p.id FROM planning.phases p
        WHERE p.id IN (SELECT c.phase_id FROM containers c)
          AND EXISTS (
              SELECT FROM planning.tasks t WHERE t.phase_id = p.id AND {_IN_NOBODYS_HAND}
          )
        FOR KEY SHARE OF p SKIP LOCKED
    ),
    initiatives AS MATERIALIZED (
        SELECT i.id FROM planning.initiatives i
        WHERE i.id IN (SELECT c.initiative_id FROM containers c)
          AND EXISTS (
              SELECT FROM planning.tasks t WHERE t.initiative_id = i.id AND {_IN_NOBODYS_HAND}
          )
        FOR KEY SHARE OF i SKIP LOCKED
    )
    SELECT c.phase_id, c.initiative_id
    FROM containers c
    LEFT JOIN phases p ON p.id = c.phase_id
    LEFT JOIN initiatives i ON i.id = c.initiative_id
    LEFT JOIN LATERAL (
        SELECT t.id FROM planning.tasks t WHERE t.phase_id = p.id AND {_IN_NOBODYS_HAND}
        LIMIT 1 FOR KEY SHARE OF t SKIP LOCKED
    ) AS in_phase ON true
    LEFT JOIN LATERAL (
        SELECT t.id FROM planning.tasks t WHERE t.initiative_id = i.id AND {_IN_NOBODYS_HAND}
        LIMIT 1 FOR KEY SHARE OF t SKIP LOCKED
    ) AS in_initiative ON true
    WHERE in_phase.id IS NULL AND in_initiative.id IS NULL
    """
)
"""The containers of these completed tasks, but those that a task which nobody has keeps open."""

_HOLDING = f"""
    WITH RECURSIVE {_LINEAGE},
    phases AS MATERIALIZED (
        SELECT p.id, p.initiative_id, p.status FROM planning.phases p
        WHERE p.id IN (
            SELECT unnest(CAST(:ids AS uuid[])) UNION SELECT l.phase_id FROM lineage l
        )
        FOR SHARE OF p
    ),
    initiatives AS MATERIALIZED (
        SELECT i.id, i.status FROM planning.initiatives i
        WHERE i.id IN (
            SELECT unnest(CAST(:ids AS uuid[])) UNION SELECT l.initiative_id FROM lineage l
            UNION SELECT p.initiative_id FROM phases p
        )
        FOR SHARE OF i
    )"""

IS_OVER = numbered(
    f"""
    {_HOLDING}
    SELECT p.id AS phase_id, CAST(NULL AS uuid) AS initiative_id, p.status FROM phases p
    WHERE p.status IN ('pending_review', 'completed')
    UNION ALL
    SELECT NULL, i.id, i.status FROM initiatives i WHERE i.status <> 'active'
    """
)
"""The containers of these tasks, or among these ids, that are over."""

_WITH_WORK = numbered(
    f"""
    WITH RECURSIVE below AS (
        SELECT t.id AS top, t.id, t.status
        FROM planning.tasks t WHERE t.id = ANY (CAST(:ids AS uuid[]))
        UNION
        SELECT b.top, t.id, t.status
        FROM below b JOIN planning.tasks t ON t.parent_task_id = b.id WHERE t.phase_id IS NULL
    )
    SELECT DISTINCT t.top FROM below t WHERE {_LEFT}
    """
)

_LOCK_PHASES = numbered(
    """
    SELECT p.id FROM planning.phases p WHERE p.id = ANY (CAST(:ids AS uuid[]))
    ORDER BY p.id FOR UPDATE
    """
)

_LOCK_PHASES_OF = numbered(
    """
    SELECT p.id FROM planning.phases p
    WHERE p.initiative_id = ANY (CAST(:ids AS uuid[])) AND p.status NOT IN ('pending', 'completed')
    ORDER BY p.id FOR UPDATE
    """
)

_LOCK_INITIATIVES = numbered(
    """
    SELECT i.id FROM planning.initiatives i WHERE i.id = ANY (CAST(:ids AS uuid[]))
    ORDER BY i.id FOR UPDATE
    """
)

_READ_PHASES = numbered(
    f"""
    SELECT p.id, p.initiative_id, p.status, i.execution_mode,
           EXISTS (SELECT FROM planning.tasks t WHERE t.phase_id = p.id) AS any,
           CASE WHEN EXISTS (SELECT FROM planning.tasks t WHERE t.phase_id = p.id AND {_LEFT})
           THEN true ELSE EXISTS (
               WITH RECURSIVE below AS (
                   SELECT t.id, t.status FROM planning.tasks t WHERE t.phase_id = p.id
                   UNION
                   SELECT t.id, t.status
                   FROM below b JOIN planning.tasks t ON t.parent_task_id = b.id
                   WHERE t.phase_id IS NULL
               )
               SELECT FROM below t WHERE {_LEFT}
           ) END AS open
    FROM planning.phases p JOIN planning.initiatives i ON i.id = p.initiative_id
    WHERE p.id = ANY (CAST(:ids AS uuid[]))
    ORDER BY p.position, p.id
    """
)

_READ_INITIATIVES = numbered(
    f"""
    SELECT i.id, i.status,
           EXISTS (SELECT FROM planning.tasks t WHERE t.initiative_id = i.id)
           OR EXISTS (SELECT FROM planning.phases p WHERE p.initiative_id = i.id) AS any,
           EXISTS (SELECT FROM planning.tasks t WHERE t.initiative_id = i.id AND {_LEFT})
           OR EXISTS (
               SELECT FROM planning.phases p
               WHERE p.initiative_id = i.id AND p.status <> 'completed'
           ) AS open
    FROM planning.initiatives i
    WHERE i.id = ANY (CAST(:ids AS uuid[]))
    ORDER BY i.id
    """
)


async def may_be_over(db: AsyncConnection, completed: Iterable[UUID]) -> Containers:
    """The containers of these completed tasks that are to be looked at under their lock."""
    return _containers(await fetch(db, MAY_BE_OVER, {"ids": list(completed)}))


async def over(db: AsyncConnection, ids: Iterable[UUID]) -> Containers:
    """The containers of these tasks, or among these ids, that are over; none will be meanwhile."""
    return _containers(await fetch(db, IS_OVER, {"ids": list(ids)}))


async def with_work(db: AsyncConnection, ids: Iterable[UUID]) -> set[UUID]:
    """Those of these tasks that are not completed, or have one below them in the same phase."""
    return {row["top"] for row in await fetch(db, _WITH_WORK, {"ids": list(ids)})}


async def look_at_phases(db: AsyncConnection, ids: Iterable[UUID]) -> list[FoundPhase]:
    """Lock these phases and see what they hold."""
    return await _phases(db, [row["id"] for row in await fetch(db, _LOCK_PHASES, _ids(ids))])


async def look_at_phases_of(db: AsyncConnection, initiatives: Iterable[UUID]) -> list[FoundPhase]:
    """Lock the phases of these initiatives that have begun or may, and see what they hold."""
    locked = await fetch(db, _LOCK_PHASES_OF, _ids(initiatives))
    return await _phases(db, [row["id"] for row in locked])


async def look_at_initiatives(db: AsyncConnection, ids: Iterable[UUID]) -> list[FoundInitiative]:
    """Lock these initiatives and see what they hold."""
    locked = [row["id"] for row in await fetch(db, _LOCK_INITIATIVES, _ids(ids))]
    if not locked:
        return []
    return [
        FoundInitiative(row["id"], row["status"], Children(row["any"], row["open"]))
        for row in await fetch(db, _READ_INITIATIVES, {"ids": locked})
    ]


async def _phases(db: AsyncConnection, locked: list[UUID]) -> list[FoundPhase]:
    if not locked:
        return []
    return [
        FoundPhase(
            row["id"],
            row["initiative_id"],
            row["status"],
            row["execution_mode"],
            Children(row["any"], row["open"]),
        )
        for row in await fetch(db, _READ_PHASES, {"ids": locked})
    ]


def _ids(ids: Iterable[UUID]) -> dict[str, list[UUID]]:
    return {"ids": list(ids)}


def _containers(rows: Iterable[Record]) -> Containers:
    phases, initiatives = set(), set()
    for row in rows:
        phases.add(row["phase_id"])
        initiatives.add(row["initiative_id"])
    return Containers(
        {id_ for id_ in phases if id_ is not None}, {id_ for id_ in initiatives if id_ is not None}
    )
