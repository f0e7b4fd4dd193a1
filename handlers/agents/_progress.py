"""Whether an agent gets on, which its heartbeats alone do not say."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.handling import Configured, Decision, Emit, carry_out, periodic
from contracts.agents.agents import Agent, AgentStalled
from persistence.agents import agents


@periodic(every=5.0, limit=100, emits=(AgentStalled,))
async def tell_stalled_agents(
    *,
    db: AsyncConnection,
    emit: Emit,
    now: datetime,
    served_at: datetime,
    limit: int,
    stall_after: Annotated[timedelta | None, Configured("stall_after")],
) -> int:
    """Tell of running agents that make no progress, once each; returns how many."""
    if stall_after is None:
        return 0
    found = await agents.lock_stalled(db, before=served_at - stall_after, limit=limit)

    decisions = [stall(agent, now) for agent in found]
    await carry_out(decisions, db=db, emit=emit)

    return len(decisions)


def stall(agent: Agent, now: datetime) -> Decision[Agent]:
    """Said, and nothing taken from it: it may just be thinking."""
    stalled = agent.evolve(now, stalled_at=now)

    return Decision(stalled, AgentStalled(agent=stalled))
