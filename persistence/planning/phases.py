"""Queries of phases: which there are, where they stand, what their tasks make of them."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage import Listing, columns, entity_from, equal
from contracts.planning.phases import ListDispatchablePhases, ListPhases, Phase, PhaseContents
from contracts.planning.tasks import Task
from persistence.planning import task_deletion as _task_deletion
from persistence.planning.phase_graph import PHASE_GRAPH
from persistence.planning.tables import phase, task

Listing(ListPhases, equal(phase, "initiative_id", "status", "external_ref"))

Listing(
    ListDispatchablePhases,
    {
        "initiative_id": and_(
            *equal(phase, "initiative_id").values(),
            phase.c.status == literal_column("'approved'"),
            ~PHASE_GRAPH.waits(phase.c.id),
        )
    },
)


async def lock_all(db: AsyncConnection, initiative_id: UUID) -> list[Phase]:
    """Lock every phase of an initiative; in their order."""
    found = await _lock(db, phase.c.initiative_id == initiative_id)
    return sorted(found, key=lambda each: (each.position, each.id))


async def dispatchable_among(
    db: AsyncConnection, ids: Iterable[UUID], needing: Iterable[UUID] | None = None
) -> list[Phase]:
    """Those of these phases that can be started, and depend on any of the others if so asked."""
    approved = phase.c.status == literal_column("'approved'")
    free = ~PHASE_GRAPH.waits(phase.c.id)
    statement = columns(Phase).where(phase.c.id == func.any(list(ids)), approved, free)
    if needing is not None:
        statement = statement.where(phase.c.id.in_(PHASE_GRAPH.dependents_of(list(needing))))
    found = await db.execute(statement.order_by(phase.c.position, phase.c.id))
    return [entity_from(Phase, row) for row in found]


async def lock_named(db: AsyncConnection, initiative_ids: Iterable[UUID], name: str) -> list[Phase]:
    """Lock the phases of these initiatives that have this name."""
    return await _lock(
        db, phase.c.initiative_id == func.any(list(initiative_ids)), phase.c.name == name
    )


async def last_positions(db: AsyncConnection, initiative_ids: Iterable[UUID]) -> dict[UUID, int]:
    """The position of the last phase of each of these initiatives that has any."""
    statement = (
        select(phase.c.initiative_id, func.max(phase.c.position).label("last"))
        .where(phase.c.initiative_id == func.any(list(initiative_ids)))
        .group_by(phase.c.initiative_id)
    )
    return {row.initiative_id: row.last for row in await db.execute(statement)}


async def lock_open_reviews(db: AsyncConnection, ids: Iterable[UUID]) -> dict[UUID, Task]:
    """Lock the review tasks of these phases that are not completed; the oldest of each phase."""
    statement = (
        columns(Task)
        .where(
            task.c.phase_id == func.any(list(ids)),
            task.c.category == "review",
            task.c.status.in_(["pending", "in_progress"]),
        )
        .order_by(task.c.id)
        .with_for_update(key_share=True)
    )
    tasks = [entity_from(Task, row) for row in await db.execute(statement)]
    return {each.phase_id: each for each in reversed(tasks) if each.phase_id is not None}


async def fresh_ids(db: AsyncConnection, number: int) -> list[UUID]:
    """New ids for what follows from a command."""
    if not number:
        return []
    series = func.generate_series(1, number).table_valued("n")
    return list((await db.execute(select(func.uuidv7()).select_from(series))).scalars())


async def tasks_in(db: AsyncConnection, id_: UUID) -> list[UUID]:
    """The tasks that name this phase as theirs."""
    return list((await db.execute(select(task.c.id).where(task.c.phase_id == id_))).scalars())


async def contents(db: AsyncConnection, locked: Phase) -> tuple[PhaseContents, list[UUID]]:
    """What goes along when this phase is deleted, and its tasks among that."""
    tasks = await _task_deletion.tasks_going(db, task.c.phase_id == locked.id)
    dependencies = await PHASE_GRAPH.count(db, [locked.id])
    return PhaseContents(tasks=tasks.number, dependencies=dependencies), tasks.ids


async def _lock(db: AsyncConnection, *where: ColumnElement[bool]) -> list[Phase]:
    statement = columns(Phase).where(*where).order_by(phase.c.id).with_for_update(key_share=True)
    return [entity_from(Phase, row) for row in await db.execute(statement)]
