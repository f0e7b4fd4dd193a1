"""Agents together with the tasks that they have in progress, locked.

The order of locks: **tasks in the order of their ids, then agents in the order of theirs.** So does
whoever deletes a task (its agents forget it) and whoever claims one (its agent begins to run). An
agent's tasks are not known for certain before the agent is locked, since a claim in its name may
come between; then everything is let go and locked again. Whoever does not wait for locks, because
it skips what others hold, may lock in any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, Integer, Select, Text, Uuid, bindparam, func, literal_column, text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage import columns, entity_from
from bus.storage import entities as _entities
from contracts.agents.agents import Agent
from contracts.planning.tasks import Task
from persistence.agents.tables import agent
from persistence.planning.tables import task

_SAVEPOINT = text("SAVEPOINT nothing_held")
_LET_GO = text("ROLLBACK TO SAVEPOINT nothing_held")

_NAMES = bindparam("names", type_=ARRAY(Text))
_KNOWN = bindparam("known", type_=ARRAY(Uuid))

# Written into the text, so that any plan can use the partial indexes.
_IN_PROGRESS = task.c.status == literal_column("'in_progress'")

_TASKS = (
    columns(Task).where(_IN_PROGRESS, task.c.claimed_by == func.any(_NAMES)).order_by(task.c.id)
)
_LOCK_TASKS = _TASKS.with_for_update(key_share=True)
_TRY_LOCK_TASKS = _TASKS.with_for_update(key_share=True, skip_locked=True)
_OTHERS = (
    _TASKS.with_only_columns(task.c.claimed_by).order_by(None).where(task.c.id != func.all(_KNOWN))
)

_TRY_LOCK_EXPIRED = (
    columns(Agent)
    .where(agent.c.lease_expires_at < bindparam("now"))
    .order_by(agent.c.lease_expires_at, agent.c.id)
    .limit(bindparam("limit", type_=Integer))
    .with_for_update(key_share=True, skip_locked=True)
)


@dataclass(frozen=True)
class LockedAgents:
    """Locked agents, and all tasks that they have in progress, locked."""

    agents: Sequence[Agent]
    tasks: Sequence[Task]


async def lock(db: AsyncConnection, id_: UUID) -> LockedAgents:
    """An agent with its tasks, or ``AgentNotFound``; waits for whoever is at them."""
    await db.execute(_SAVEPOINT)
    while True:
        tasks = await _tasks(db, _LOCK_TASKS, [id_])
        found = await _entities.get_locked(db, Agent, id_)
        if not await _others(db, [id_], tasks):
            return LockedAgents([found], tasks)
        await db.execute(_LET_GO)


async def try_lock_expired(db: AsyncConnection, *, now: datetime, limit: int) -> LockedAgents:
    """The agents whose lease is over, longest over first, with their tasks; waits for nobody.

    An agent at which, or at whose tasks, somebody works is passed over.
    """
    rows = await db.execute(_TRY_LOCK_EXPIRED, {"now": now, "limit": limit})
    expired = [entity_from(Agent, row) for row in rows]
    if not expired:
        return LockedAgents([], [])
    ids = [one.id for one in expired]
    tasks = await _tasks(db, _TRY_LOCK_TASKS, ids)
    busy = await _others(db, ids, tasks)

    return LockedAgents(
        [one for one in expired if str(one.id) not in busy],
        [one for one in tasks if one.claimed_by not in busy],
    )


async def _tasks(
    db: AsyncConnection, statement: Select[*tuple[object, ...]], ids: Iterable[UUID]
) -> list[Task]:
    rows = await db.execute(statement, {"names": [str(id_) for id_ in ids]})
    return [entity_from(Task, row) for row in rows]


async def _others(db: AsyncConnection, ids: Iterable[UUID], known: Sequence[Task]) -> set[str]:
    """The agents, as text, that have tasks in progress besides these."""
    values = {"names": [str(id_) for id_ in ids], "known": [one.id for one in known]}
    return set((await db.execute(_OTHERS, values)).scalars())
