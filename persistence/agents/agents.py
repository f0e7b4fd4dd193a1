"""Queries of agents."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from sqlalchemy import Integer, bindparam, exists, literal_column
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage import Listing, columns, entity_from, equal, is_set, require_fitting
from bus.storage.own.tables import pulse
from contracts.agents.agents import Agent, AgentNotFound, FindAgent, ListAgents
from persistence.agents.tables import Prompt, agent

Listing(
    ListAgents,
    {
        **equal(agent, "status", "initiative_id", "mode"),
        "dismissed": is_set(agent.c.dismissed_at),
        "suspected": is_set(agent.c.suspected_at),
    },
)
_KEYS = ("name", "session_id", "task_id")

_BEHIND = (
    columns(Agent)
    .where(agent.c.connection_name == bindparam("connection_name"))
    .where(agent.c.lease_expires_at.is_not(None))
    .order_by(agent.c.id)
    .with_for_update(key_share=True)
)

_STALLED = (
    columns(Agent)
    .where(
        agent.c.status == literal_column("'running'"),
        agent.c.stalled_at.is_(None),
        agent.c.last_progress_at < bindparam("before"),
        # Nobody could say that it gets on while nobody could be heard.
        ~exists().where(pulse.c.restored_at > bindparam("before")),
    )
    .order_by(agent.c.last_progress_at, agent.c.id)
    .limit(bindparam("limit", type_=Integer))
    .with_for_update(key_share=True, skip_locked=True)
)


async def find(db: AsyncConnection, query: FindAgent) -> Agent:
    """The latest agent with this name, session or task, or ``AgentNotFound``."""
    given = {name: value for name in _KEYS if (value := getattr(query, name)) is not None}
    [(name, value)] = given.items()
    latest = columns(Agent).where(agent.c[name] == value)
    latest = latest.order_by(agent.c.created_at.desc(), agent.c.id.desc()).limit(1)
    row = (await db.execute(latest)).one_or_none()
    if row is None:
        raise AgentNotFound(**given)
    return entity_from(Agent, row)


def prompt_for(agent: Agent, words: str | None, *, now: datetime) -> list[Prompt]:
    """What a new agent is told to do, to be kept beside it."""
    return [] if words is None else [Prompt.first(id=agent.id, now=now, prompt=words)]


async def add_unless_named(db: AsyncConnection, new: Agent) -> bool:
    """Insert an agent; whether it was, for another one may have its name."""
    require_fitting([new])
    adding = postgresql.insert(agent).values(new.model_dump())
    adding = adding.on_conflict_do_nothing(index_elements=["name"])
    return (await db.execute(adding.returning(agent.c.id))).one_or_none() is not None


async def lock_behind(db: AsyncConnection, connection_name: str) -> list[Agent]:
    """Lock the agents of this connection of which something is expected."""
    rows = await db.execute(_BEHIND, {"connection_name": connection_name})
    return [entity_from(Agent, row) for row in rows]


async def lock_stalled(db: AsyncConnection, *, before: datetime, limit: int) -> list[Agent]:
    """Lock running agents without progress since then, of which it was not told yet.

    Of what happened during an outage, and for so long after it, nothing is known.
    """
    rows = await db.execute(_STALLED, {"before": before, "limit": limit})
    return [entity_from(Agent, row) for row in rows]


async def lock_on_accounts(db: AsyncConnection, account_ids: Collection[UUID]) -> list[Agent]:
    """Lock the agents whose process may be there and that run on these accounts, by their ids."""
    statement = (
        columns(Agent)
        .where(
            agent.c.account_id.in_(account_ids),
            agent.c.status.in_(("idle", "running", "waiting_for_input")),
        )
        .order_by(agent.c.provider, agent.c.id)
        .with_for_update(of=agent, key_share=True)
    )
    return [entity_from(Agent, row) for row in await db.execute(statement)]
