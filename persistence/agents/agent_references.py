"""What agents refer to and must let go of: no foreign key empties it unseen."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Uuid, bindparam, exists, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage import TABLES, gone_with, present
from contracts.planning.initiatives import Initiative
from contracts.planning.tasks import Task
from persistence.agents.tables import agent
from persistence.planning.tables import task

References = dict[UUID, UUID]
"""Agents, and what each of them refers to."""

_IDS = bindparam("ids", type_=ARRAY(Uuid))


async def to_tasks(db: AsyncConnection, ids: Collection[UUID] | None) -> References:
    """The agents of these tasks; without ids those of all tasks that are not there."""
    if ids is not None:
        return await _to(db, agent.c.task_id, ids)
    gone = select(agent.c.id, agent.c.task_id).where(
        agent.c.task_id.is_not(None),
        ~exists().where(task.c.id == agent.c.task_id, *present(Task)),
    )
    return {row.id: row.task_id for row in await db.execute(gone)}


async def to_gone(db: AsyncConnection, *, limit: int) -> tuple[References, References]:
    """Agents of tasks, and of initiatives, that are gone and whose rows are still being removed."""
    found = []
    for column, kind in ((agent.c.task_id, Task), (agent.c.initiative_id, Initiative)):
        target = TABLES[kind]
        gone = select(agent.c.id, column.label("target")).join(target, target.c.id == column)
        rows = await db.execute(gone.where(*gone_with(kind)).order_by(agent.c.id).limit(limit))
        found.append({row.id: row.target for row in rows})
    return found[0], found[1]


async def to_initiatives(db: AsyncConnection, ids: Collection[UUID]) -> References:
    """The agents of these initiatives."""
    return await _to(db, agent.c.initiative_id, ids)


async def to_account(db: AsyncConnection, id_: UUID) -> References:
    """The agents that run or ran on this account."""
    return await _to(db, agent.c.account_id, [id_])


async def _to(
    db: AsyncConnection, column: ColumnElement[UUID | None], ids: Collection[UUID]
) -> References:
    if not ids:
        return {}
    found = select(agent.c.id, column.label("target")).where(column == func.any(_IDS))
    return {row.id: row.target for row in await db.execute(found, {"ids": list(ids)})}
