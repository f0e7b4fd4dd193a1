"""Agents that go on with another account."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.handling import Decision, Emit, carry_out, reaction
from contracts.agents.accounts import (
    AccountAvailable,
    AccountExhausted,
    AccountUpdated,
    NoAccountAvailable,
)
from contracts.agents.agents import Agent, AgentAccountNeeded, AgentAccountSwitched
from handlers.agents._account_turns import take_next
from persistence.agents import agents


@reaction(emits=(AgentAccountSwitched, AgentAccountNeeded, AccountAvailable, AccountUpdated))
async def switch_exhausted_accounts(
    events: Sequence[AccountExhausted], *, db: AsyncConnection, emit: Emit, now: datetime
) -> None:
    """Agents on an exhausted account get the next one each, or tell that they need one."""
    exhausted = {event.account.id for event in events}
    on_it = await agents.lock_on_accounts(db, exhausted)

    decisions = [await _next_account(agent, db=db, emit=emit, now=now) for agent in on_it]
    await carry_out(decisions, db=db, emit=emit)


def switch_account(agent: Agent, account_id: UUID, reason: str, now: datetime) -> Decision[Agent]:
    """The agent as it runs on another account."""
    other = agent.evolve(now, account_id=account_id)
    event = AgentAccountSwitched(agent=other, previous_account_id=agent.account_id, reason=reason)

    return Decision(other, event)


async def _next_account(
    agent: Agent, *, db: AsyncConnection, emit: Emit, now: datetime
) -> Decision[Agent]:
    try:
        account = await take_next(db, emit, agent.provider, now=now, besides=agent.account_id)
    except NoAccountAvailable as none:
        needing = agent.evolve(now)
        return Decision(needing, AgentAccountNeeded(agent=needing, earliest=none.earliest))

    return switch_account(agent, account.id, "Its account is exhausted.", now)
