"""What becomes of an agent that ended without saying so, and of the tasks that it had.

Several detectors may see one crash: the status, looked at under the lock, lets the first of them
tell it. Locks are taken in one order, see ``persistence/agents/_held.py``.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from contracts._declare import Event
from contracts.agents._agent import Agent, AgentCrashed, LostTask
from contracts.agents._fields import CrashCause
from contracts.planning.tasks import Task
from handlers._shapes import Decision, Emit
from handlers.agents._agent_rules import ENDED
from handlers.agents._states import AGENT
from handlers.planning._task_rules import lose_agent
from persistence._entities import save
from persistence.agents._held import Held


@dataclass(frozen=True)
class Crash:
    """How a crash became known, and what is said of it."""

    cause: CrashCause
    reason: str
    exit_code: int | None = None


async def crash_agents(
    held: Held, crash: Crash, *, db: AsyncConnection, emit: Emit, now: datetime
) -> list[Agent]:
    """Take these agents for crashed and their tasks back; told of each agent before its tasks."""
    tasks = defaultdict(list)
    for task in held.tasks:
        tasks[task.claimed_by].append(lose_agent(task, now=now))

    agents: list[Agent] = []
    told: list[Event] = []
    for agent in held.agents:
        lost = tasks[str(agent.id)]
        agents.append(crashed(agent, crash, now))
        told.append(_crashed_event(agents[-1], crash, lost))
        told.extend(event for decision in lost for event in decision.events)

    await save(db, [decision.entity for lost in tasks.values() for decision in lost])
    await save(db, agents)
    for event in told:
        emit(event)

    return agents


def crashed(agent: Agent, crash: Crash, now: datetime) -> Agent:
    """The agent as its crash leaves it."""
    AGENT.require(agent, "crash")
    return agent.evolve(now, status="crashed", exit_code=crash.exit_code, **ENDED)


def _crashed_event(agent: Agent, crash: Crash, lost: list[Decision[Task]]) -> AgentCrashed:
    return AgentCrashed(
        agent=agent,
        cause=crash.cause,
        reason=crash.reason,
        exit_code=crash.exit_code,
        tasks=[_lost(decision.entity) for decision in lost],
        progress=agent.progress,
    )


def _lost(task: Task) -> LostTask:
    return LostTask(
        id=task.id,
        attempt=task.attempt,
        outcome="retried" if task.status == "pending" else "blocked",
        retry_count=task.retry_count,
    )
