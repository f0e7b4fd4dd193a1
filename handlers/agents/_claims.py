"""An agent in whose name a task is claimed begins to run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.agents.agents import Agent, AgentRunning, AgentUpdated
from contracts.planning.tasks import TaskClaimed
from handlers._shapes import Decision, Emit, reaction
from handlers.agents._agent_rules import start_work
from persistence._entities import lock, save


def _by_an_id(event: TaskClaimed) -> bool:
    return agent_id(event.task.claimed_by) is not None


@reaction(about=_by_an_id)
async def begin_claimed(
    events: Sequence[TaskClaimed], *, db: AsyncConnection, emit: Emit, now: datetime
) -> None:
    """Whoever claims needs not be registered; where no name is an id, nothing is looked up."""
    tasks: dict[UUID, UUID] = {}
    for event in events:
        if (id_ := agent_id(event.task.claimed_by)) is not None:
            tasks.setdefault(id_, event.task.id)

    found = await lock(db, Agent, tasks)
    decisions = [
        decision
        for id_, agent in found.items()
        if (decision := take_up(agent, tasks[id_], now)) is not None
    ]

    await save(db, [decision.entity for decision in decisions])
    for decision in decisions:
        emit(*decision.events)


def take_up(agent: Agent, task_id: UUID, now: datetime) -> Decision[Agent] | None:
    """What a claimed task changes of an agent; None where that is nothing."""
    if agent.status == "idle":
        running = start_work(agent, task_id, now)
        return Decision(running, AgentRunning(agent=running))
    if agent.status != "running" or agent.task_id == task_id:
        return None

    updated = agent.evolve(now, task_id=task_id)

    return Decision(updated, AgentUpdated(agent=updated))


def agent_id(claimed_by: str | None) -> UUID | None:
    """The id that a claim names, written the way that ids are; None for any other name."""
    try:
        id_ = UUID(claimed_by)
    except (TypeError, ValueError):
        return None
    return id_ if str(id_) == claimed_by else None
