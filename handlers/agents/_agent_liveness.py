"""Whether an agent is there: leases that its heartbeats extend, and connections that are gone."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.handling import Decision, Emit, carry_out, periodic
from contracts.agents.agents import (
    Agent,
    AgentCrashed,
    AgentReconnected,
    AgentSuspected,
    Heartbeat,
    HeartbeatReply,
)
from contracts.planning.tasks import TaskBlocked, TaskRetried
from handlers.agents._agent_crashes import expire
from handlers.agents._agent_rules import is_between_runs, lease, require_live
from persistence.agents import agent_tasks as _agent_tasks

IN_FLIGHT = timedelta(milliseconds=500)
"""So long a heartbeat may have been under way: it says nothing against a younger suspicion."""


@periodic(
    every=0.75,  # and it is told within a second, jitter included
    limit=100,
    vital=True,
    emits=(AgentCrashed, TaskRetried, TaskBlocked),
)
async def expire_agent_leases(
    *, db: AsyncConnection, emit: Emit, now: datetime, served_at: datetime, limit: int
) -> int:
    """Take silent agents for crashed; returns how many, ``limit`` at most."""
    held = await _agent_tasks.try_lock_expired(db, now=served_at, limit=limit)

    departures = expire(held, now)
    decisions = [decision for departure in departures for decision in departure.decisions]
    await carry_out(decisions, db=db, emit=emit)

    return len(departures)


def beat(command: Heartbeat, agent: Agent, now: datetime) -> Decision[Agent]:
    """The agent is there; an older suspicion was wrong."""
    require_live(agent, command.incarnation, "heartbeat")
    # Of one that has finished nothing is expected, until it works again.
    until = None if is_between_runs(agent) else lease(agent, now)
    changed: dict[str, Any] = {"last_heartbeat_at": now, "lease_expires_at": until}
    if command.progress is not None:
        changed |= {"last_progress_at": now, "progress": command.progress, "stalled_at": None}

    # Built from an entity: a heartbeat is no change of the version, and there are many of them.
    alive = Agent.trusted(agent.__dict__ | changed)
    reply = HeartbeatReply(
        lease_expires_at=until,
        cancel_requested=agent.cancel_requested_at is not None,
        server_time=now,
    )
    if agent.suspected_at is None or now - agent.suspected_at < IN_FLIGHT:
        return Decision(alive, reply=reply)

    there = reinstate(alive, now)
    return Decision(there.entity, *there.events, reply=reply)


def suspect(agent: Agent, now: datetime) -> Decision[Agent]:
    """The agent's connection is gone."""
    if agent.suspected_at is not None:
        return Decision.unchanged(agent)

    suspected = agent.evolve(now, suspected_at=now)

    return Decision(suspected, AgentSuspected(agent=suspected))


def reinstate(agent: Agent, now: datetime) -> Decision[Agent]:
    """The agent is there after all."""
    if agent.suspected_at is None:
        return Decision.unchanged(agent)

    there = agent.evolve(now, suspected_at=None)

    return Decision(there, AgentReconnected(agent=there))
