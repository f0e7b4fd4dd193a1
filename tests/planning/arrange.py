"""What tests of planning start from: `a_…` is made through the bus, `add_…` puts in a row."""

from typing import Any
from uuid import UUID

from sqlalchemy import Table, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.kit.ids import uuid7
from contracts.planning.initiatives import CreateInitiative, Initiative
from contracts.planning.phases import AddPhaseDependency, CreatePhase, Phase
from fleetbus.client import Bus
from persistence.planning import task_readiness as _task_readiness
from persistence.planning.tables import initiative, phase, task, task_dependency


async def add(db: AsyncConnection, table: Table, **values: Any) -> UUID:
    id_: UUID = values.setdefault("id", uuid7())
    await db.execute(insert(table).values(**values))
    await db.execute(text(_task_readiness.ALL))
    return id_


async def add_initiative(db: AsyncConnection, **values: Any) -> UUID:
    return await add(db, initiative, **{"name": "an initiative", **values})


async def add_phase(db: AsyncConnection, initiative_id: UUID, **values: Any) -> UUID:
    given = {"name": "a phase", "position": 0, "status": "in_progress", **values}
    return await add(db, phase, initiative_id=initiative_id, **given)


async def add_task(db: AsyncConnection, **values: Any) -> UUID:
    return await add(db, task, **{"name": "a task", **values})


async def add_claimed(db: AsyncConnection, **values: Any) -> UUID:
    given = {"status": "in_progress", "attempt": 1, "claimed_by": "agent", **values}
    return await add_task(db, **given)


async def depend(db: AsyncConnection, id_: UUID, *others: UUID) -> None:
    for other in others:
        await add(db, task_dependency, task_id=id_, depends_on_task_id=other)


async def row(db: AsyncConnection, id_: UUID) -> Any:
    return (await db.execute(select(task).where(task.c.id == id_))).one()


async def edges(db: AsyncConnection) -> set[tuple[UUID, UUID]]:
    found = await db.execute(
        select(task_dependency.c.task_id, task_dependency.c.depends_on_task_id)
    )
    return {(one, other) for one, other in found}


async def an_initiative(bus: Bus, name: str = "Faster search", **fields: Any) -> Initiative:
    return await bus.call(CreateInitiative(name=name, **fields))


async def a_phase(bus: Bus, initiative_id: UUID, name: str = "Design", **fields: Any) -> Phase:
    return await bus.call(CreatePhase(initiative_id=initiative_id, name=name, **fields))


async def a_lone_phase(bus: Bus, name: str = "Design", **fields: Any) -> Phase:
    """A phase of an initiative of its own."""
    return await a_phase(bus, (await an_initiative(bus)).id, name, **fields)


async def two_phases(bus: Bus, **fields: Any) -> tuple[Phase, Phase]:
    """Two phases of one initiative."""
    one = await a_lone_phase(bus, "one", **fields)
    return one, await a_phase(bus, one.initiative_id, "two", **fields)


async def depend_on_phase(bus: Bus, one: Phase, other: Phase) -> Phase:
    return await bus.call(AddPhaseDependency(id=one.id, depends_on_phase_id=other.id))


async def add_task_of(
    db: AsyncConnection, of: Phase, status: str = "in_progress", **fields: Any
) -> UUID:
    given = {
        "initiative_id": of.initiative_id,
        "phase_id": of.id,
        "status": status,
        "attempt": 0 if status == "pending" else 1,
    }
    return await add_task(db, **given | fields)


async def set_status(db: AsyncConnection, entity: Initiative | Phase, status: str) -> None:
    """Put an entity into a status directly, without what would follow from it."""
    statement = f"UPDATE planning.{entity.noun}s SET status = :status WHERE id = :id"
    await db.execute(text(statement), {"status": status, "id": entity.id})
    await db.execute(text(_task_readiness.ALL))
