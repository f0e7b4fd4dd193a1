"""Rows that a test starts from, put into the database without the bus."""

from typing import Any
from uuid import UUID

from sqlalchemy import Table, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.kit.ids import uuid7
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
