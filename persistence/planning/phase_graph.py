"""Queries of what phases depend on."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Exists, Uuid, bindparam, delete, exists, func, insert, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage import Listing
from contracts.planning.phases import ListPhaseDependencies, ListPhaseDependents, Phase
from persistence.planning.tables import phase, phase_dependency

_depends_on = phase.alias("depends_on")

_ID = bindparam("id", type_=Uuid)
_EDGE = phase_dependency.c
Listing(
    ListPhaseDependencies,
    {"id": phase.c.id.in_(select(_EDGE.depends_on_phase_id).where(_EDGE.phase_id == _ID))},
    within=Phase,
)
Listing(
    ListPhaseDependents,
    {"id": phase.c.id.in_(select(_EDGE.phase_id).where(_EDGE.depends_on_phase_id == _ID))},
    within=Phase,
)


def waits() -> Exists:
    """Whether a phase depends on one that is not completed."""
    return exists().where(
        phase_dependency.c.phase_id == phase.c.id,
        _depends_on.c.id == phase_dependency.c.depends_on_phase_id,
        _depends_on.c.status != literal_column("'completed'"),
    )


async def open_dependencies(db: AsyncConnection, id_: UUID) -> list[UUID]:
    """The phases that a phase waits for and that are not completed."""
    statement = (
        select(phase.c.id)
        .join(phase_dependency, phase_dependency.c.depends_on_phase_id == phase.c.id)
        .where(phase_dependency.c.phase_id == id_, phase.c.status != "completed")
        .order_by(phase.c.position, phase.c.id)
    )
    return list((await db.execute(statement)).scalars())


async def add_dependency(db: AsyncConnection, id_: UUID, depends_on: UUID) -> None:
    """Let one phase depend on another."""
    values = {"id": func.uuidv7(), "phase_id": id_, "depends_on_phase_id": depends_on}
    await db.execute(insert(phase_dependency).values(values))


async def remove_dependency(db: AsyncConnection, id_: UUID, depends_on: UUID) -> bool:
    """Remove a dependency; returns whether there was one."""
    removed = await db.execute(
        delete(phase_dependency).where(
            phase_dependency.c.phase_id == id_,
            phase_dependency.c.depends_on_phase_id == depends_on,
        )
    )
    return bool(removed.rowcount)
