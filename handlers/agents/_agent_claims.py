"""An agent in whose name a task is claimed begins to run; one that has ended gets none.

What was claimed is looked at again under the lock of the agent: whoever ends it waits for the claim
and frees the task, or was there before and the claim is refused. So an ended agent never holds one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import Refusal
from bus.handling import Decision, Emit, carry_out, reaction
from bus.storage import load, lock
from contracts.agents.agents import Agent, AgentRunning, AgentUpdated
from contracts.planning.tasks import ClaimTasks, TaskClaimed
from handlers.agents._agent_rules import require_live, start_work
from handlers.planning.task_claims import claim_guard


def _by_an_id(event: TaskClaimed) -> bool:
    return agent_id(event.task.claimed_by) is not None


@reaction(about=_by_an_id, emits=(AgentRunning, AgentUpdated))
async def begin_claimed(
    events: Sequence[TaskClaimed], *, db: AsyncConnection, emit: Emit, now: datetime
) -> None:
    """Whoever claims needs not be registered; where no name is an id, nothing is looked up."""
    claims: dict[UUID, list[TaskClaimed]] = {}
    for event in events:
        if (id_ := agent_id(event.task.claimed_by)) is not None:
            claims.setdefault(id_, []).append(event)

    found = await lock(db, Agent, claims)
    decisions = []
    for id_, agent in found.items():
        for event in claims[id_]:
            require_live(agent, event.incarnation, "claim")
        decisions.append(take_up(agent, claims[id_][0].task.id, now))

    await carry_out(decisions, db=db, emit=emit)


@claim_guard
async def refuse_ended(db: AsyncConnection, claims: Sequence[ClaimTasks]) -> list[Refusal | None]:
    """Who may not claim learns it also where there was nothing to claim."""
    ids = [agent_id(claim.agent_id) for claim in claims]
    if not (known := {id_ for id_ in ids if id_ is not None}):
        return [None] * len(claims)
    found = await load(db, Agent, known)

    return [
        None if id_ is None else _refusal(found.get(id_), claim)
        for id_, claim in zip(ids, claims, strict=True)
    ]


def take_up(agent: Agent, task_id: UUID, now: datetime) -> Decision[Agent]:
    """What a claimed task changes of an agent."""
    if agent.status == "idle":
        running = start_work(agent, task_id, now)
        return Decision(running, AgentRunning(agent=running))
    if agent.status != "running" or agent.task_id == task_id:
        return Decision.unchanged(agent)

    updated = agent.evolve(now, task_id=task_id)

    return Decision(updated, AgentUpdated(agent=updated))


def agent_id(claimed_by: str | None) -> UUID | None:
    """The id that a claim names, written the way that ids are; None for any other name."""
    try:
        id_ = UUID(claimed_by)
    except (TypeError, ValueError):
        return None
    return id_ if str(id_) == claimed_by else None


def _refusal(agent: Agent | None, claim: ClaimTasks) -> Refusal | None:
    if agent is None:
        return None
    try:
        require_live(agent, claim.incarnation, "claim")
    except Refusal as refusal:
        return refusal
    return None
