"""What becomes of an agent that ended without saying so, and of the tasks that it had.

Several detectors may see one crash: the status, looked at under the lock, lets the first of them
tell it. Locks are taken in one order, see ``persistence/agents/agent_tasks.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from bus.handling import Decision
from contracts.agents.agents import (
    MAX_LOST_TASKS,
    Agent,
    AgentCrashed,
    ConfirmSuspicion,
    CrashAgent,
    CrashCause,
    LostTask,
)
from contracts.planning.tasks import Task
from handlers.agents._agent_departures import Departure
from handlers.agents._agent_rules import ENDED, LIVE, require_incarnation
from handlers.agents.states import AGENT
from handlers.planning.task_rules import lose_agent
from persistence.agents.agent_tasks import LockedAgents


@dataclass(frozen=True)
class Crash:
    """How a crash became known, and what is said of it."""

    cause: CrashCause
    reason: str
    exit_code: int | None = None


EXPIRED = Crash("lease_expired", "Nothing was heard from it for three heartbeats.")
DISCONNECTED = Crash("disconnected", "Its connection was lost and did not come back in time.")


def report(command: CrashAgent, held: LockedAgents, now: datetime) -> Departure:
    """Somebody says that the agent has crashed."""
    [agent] = held.agents
    require_incarnation(agent, command.incarnation)

    return crash(agent, held.tasks, Crash("reported", command.reason, command.exit_code), now)


def confirm(command: ConfirmSuspicion, held: LockedAgents, now: datetime) -> Departure | None:
    """The agent has not come back in time; None where the suspicion is not this one any more."""
    [agent] = held.agents
    if agent.status not in LIVE or agent.suspected_at != command.suspected_at:
        return None

    return crash(agent, held.tasks, DISCONNECTED, now)


def expire(held: LockedAgents, now: datetime) -> list[Departure]:
    """The leases of these agents are over."""
    return [
        crash(agent, [one for one in held.tasks if one.claimed_by == str(agent.id)], EXPIRED, now)
        for agent in held.agents
    ]


def crash(agent: Agent, tasks: Sequence[Task], how: Crash, now: datetime) -> Departure:
    """Take an agent for crashed, and its tasks back."""
    AGENT.require(agent, "crash")

    crashed = agent.evolve(now, status="crashed", exit_code=how.exit_code, **ENDED)
    lost = [lose_agent(task, now=now) for task in tasks]
    event = AgentCrashed(
        agent=crashed,
        cause=how.cause,
        reason=how.reason,
        exit_code=how.exit_code,
        tasks=[_lost(decision.entity) for decision in lost[:MAX_LOST_TASKS]],
        progress=agent.progress,
    )

    return Departure(Decision(crashed, event), lost)


def _lost(task: Task) -> LostTask:
    return LostTask(
        id=task.id,
        attempt=task.attempt,
        outcome="retried" if task.status == "pending" else "blocked",
        retry_count=task.retry_count,
    )
