"""Agents let go of what is deleted: a reference is emptied with a version and an event."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.handling import Decision, Emit, carry_out, periodic, reaction
from bus.storage import is_deleting, lock
from contracts.agents.agents import Agent, AgentUpdated
from contracts.planning.initiatives import Initiative, InitiativeDeleted
from contracts.planning.phases import PhaseDeleted
from contracts.planning.tasks import TaskDeleted
from persistence.agents import agent_references as _agent_references


@reaction(emits=(AgentUpdated,))
async def let_go_of_deleted(
    events: Sequence[TaskDeleted | PhaseDeleted | InitiativeDeleted],
    *,
    db: AsyncConnection,
    emit: Emit,
    now: datetime,
) -> None:
    """Agents of a deleted initiative, and those of tasks that are gone, however they went."""
    tasks = {event.task.id for event in events if isinstance(event, TaskDeleted)}
    initiatives = {e.initiative.id for e in events if isinstance(e, InitiativeDeleted)}
    alone = all(isinstance(e, TaskDeleted) and not e.deleted.children for e in events)

    gone = {
        "task_id": await _agent_references.to_tasks(db, tasks if alone else None),
        "initiative_id": await _agent_references.to_initiatives(db, initiatives),
    }
    await let_go(gone, db=db, emit=emit, now=now)


@periodic(every=1.0, limit=200, emits=(AgentUpdated,))
async def let_go_of_removed(*, db: AsyncConnection, emit: Emit, now: datetime, limit: int) -> int:
    """Agents that came to what was being deleted let it go, before its rows are removed.

    Returns how many, about ``limit`` at most.
    """
    if not await is_deleting(db, Initiative):
        return 0
    tasks, initiatives = await _agent_references.to_gone(db, limit=limit)

    await let_go({"task_id": tasks, "initiative_id": initiatives}, db=db, emit=emit, now=now)
    return len(tasks.keys() | initiatives.keys())


async def let_go(
    gone: dict[str, _agent_references.References], *, db: AsyncConnection, emit: Emit, now: datetime
) -> None:
    """Empty these fields of the agents that refer to what is gone, and tell so, once of each."""
    agents = {id_ for references in gone.values() for id_ in references}
    if not agents:
        return
    targets = {field: set(references.values()) for field, references in gone.items()}

    decisions = []
    for agent in (await lock(db, Agent, agents)).values():
        emptied: dict[str, Any] = {
            field: None for field in gone if getattr(agent, field) in targets[field]
        }
        if emptied:
            updated = agent.evolve(now, **emptied)
            decisions.append(Decision(updated, AgentUpdated(agent=updated)))

    await carry_out(decisions, db=db, emit=emit)
