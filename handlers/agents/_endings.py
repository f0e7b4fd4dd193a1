"""An agent that is done or ends in good order: what it has not completed goes back to the queue."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.agents._agent import Agent, AgentFinished, AgentStopped
from contracts.agents.agents import FinishAgent, StopAgent
from contracts.planning.tasks import Task, TaskReleased
from handlers._shapes import Decision, Emit
from handlers.agents._agent_rules import ENDED, require_incarnation
from handlers.agents._states import AGENT
from handlers.planning._states import TASK
from handlers.planning._task_rules import UNCLAIMED
from persistence._entities import save
from persistence.agents._held import Held

FINISHED = "agent_finished"
"""Why the tasks of a finished agent are released."""


def finish(command: FinishAgent, agent: Agent, now: datetime) -> Decision[Agent]:
    """The agent as it waits for other work."""
    require_incarnation(agent, command.incarnation)
    AGENT.require(agent, "finish")

    idle = agent.evolve(now, status="idle", result=command.result, **ENDED)

    return Decision(idle, AgentFinished(agent=idle))


def stop(command: StopAgent, agent: Agent, now: datetime) -> Decision[Agent]:
    """The agent as its end in good order leaves it."""
    require_incarnation(agent, command.incarnation)
    AGENT.require(agent, "stop")

    stopped = agent.evolve(now, status="stopped", exit_code=command.exit_code, **ENDED)

    return Decision(stopped, AgentStopped(agent=stopped, reason=command.reason))


def give_back(task: Task, reason: str, now: datetime) -> Decision[Task]:
    """A task without its agent, for anybody to claim."""
    TASK.require(task, "release")
    freed = task.evolve(now, status="pending", **UNCLAIMED)

    return Decision(freed, TaskReleased(task=freed, released_by=task.claimed_by, reason=reason))


async def leave(
    held: Held,
    ended: Decision[Agent],
    reason: str,
    *,
    db: AsyncConnection,
    emit: Emit,
    now: datetime,
) -> Agent:
    """Let an agent go and take its tasks back; told of the agent before its tasks."""
    freed = [give_back(task, reason, now) for task in held.tasks]

    await save(db, [decision.entity for decision in freed])
    await save(db, [ended.entity])

    for event in (*ended.events, *(event for decision in freed for event in decision.events)):
        emit(event)

    return ended.entity
