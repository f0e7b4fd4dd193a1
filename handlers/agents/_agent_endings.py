"""An agent that is done or ends in good order: what it has not completed goes back to the queue."""

from __future__ import annotations

from datetime import datetime

from bus.handling import Decision
from contracts.agents.agents import (
    AgentDeleted,
    AgentFinished,
    AgentStopped,
    FinishAgent,
    StopAgent,
)
from contracts.planning.tasks import Task, TaskReleased
from handlers.agents._agent_departures import Departure
from handlers.agents._agent_rules import ENDED, require_live
from handlers.agents.states import AGENT
from handlers.planning.states import TASK
from handlers.planning.task_rules import UNCLAIMED
from persistence.agents.agent_tasks import LockedAgents

FINISHED = "agent_finished"
"""Why the tasks of a finished agent are released."""

DELETED = "agent_deleted"
"""Why the tasks of an agent that is deleted are released."""


def finish(command: FinishAgent, held: LockedAgents, now: datetime) -> Departure:
    """The agent waits for other work."""
    [agent] = held.agents
    require_live(agent, command.incarnation, "finish")

    idle = agent.evolve(now, status="idle", result=command.result, **ENDED)
    released = [_release(task, FINISHED, now) for task in held.tasks]

    return Departure(Decision(idle, AgentFinished(agent=idle)), released)


def stop(command: StopAgent, held: LockedAgents, now: datetime) -> Departure:
    """The agent has ended in good order."""
    [agent] = held.agents
    require_live(agent, command.incarnation, "stop")

    stopped = agent.evolve(now, status="stopped", exit_code=command.exit_code, **ENDED)
    released = [_release(task, command.reason, now) for task in held.tasks]

    return Departure(
        Decision(stopped, AgentStopped(agent=stopped, reason=command.reason)), released
    )


def dissolve(held: LockedAgents, now: datetime) -> Departure:
    """The agent is gone."""
    [agent] = held.agents
    AGENT.require(agent, "delete")

    gone = agent.evolve(now)
    released = [_release(task, DELETED, now) for task in held.tasks]

    return Departure(Decision(gone, AgentDeleted(agent=gone)), released)


def _release(task: Task, reason: str, now: datetime) -> Decision[Task]:
    TASK.require(task, "release")
    freed = task.evolve(now, status="pending", **UNCLAIMED)

    return Decision(freed, TaskReleased(task=freed, released_by=task.claimed_by, reason=reason))
