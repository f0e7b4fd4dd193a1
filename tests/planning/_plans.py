"""Plans for tests to work on, and what the outbox tells of them."""

from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.planning.initiatives import CreateInitiative, Initiative
from contracts.planning.phases import AddPhaseDependency, CreatePhase, Phase
from fleetbus.client import Bus
from persistence.planning import readiness as _readiness
from tests.kit.outbox import Outbox
from tests.planning.arranging import add_task


async def initiative(bus: Bus, name: str = "Faster search", **fields: Any) -> Initiative:
    return await bus.call(CreateInitiative(name=name, **fields))


async def phase(bus: Bus, initiative_id: UUID, name: str = "Design", **fields: Any) -> Phase:
    return await bus.call(CreatePhase(initiative_id=initiative_id, name=name, **fields))


async def lone_phase(bus: Bus, name: str = "Design", **fields: Any) -> Phase:
    """A phase of an initiative of its own."""
    return await phase(bus, (await initiative(bus)).id, name, **fields)


async def two_phases(bus: Bus, **fields: Any) -> tuple[Phase, Phase]:
    """Two phases of one initiative."""
    one = await lone_phase(bus, "one", **fields)
    return one, await phase(bus, one.initiative_id, "two", **fields)


async def depend(bus: Bus, one: Phase, other: Phase) -> Phase:
    return await bus.call(AddPhaseDependency(id=one.id, depends_on_phase_id=other.id))


async def task(db: AsyncConnection, of: Phase, status: str = "in_progress", **fields: Any) -> UUID:
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
    await db.execute(text(_readiness.ALL))


async def told(outbox: Outbox, *, besides: tuple[str, ...] = ()) -> list[str]:
    """The types of the events told, in order."""
    return [row.type for row in await outbox.all() if row.type not in besides]
