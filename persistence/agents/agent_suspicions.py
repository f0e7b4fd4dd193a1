"""Agents under suspicion, and those that could come under it."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ARRAY, Text, and_, bindparam, extract, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from persistence.agents.tables import agent

# The conditions of the partial indexes, word for word.
_EXPECTED = agent.c.lease_expires_at.is_not(None)
_SUSPECTED = agent.c.suspected_at.is_not(None)

_LIVING = (
    select(agent.c.connection_name)
    .where(
        agent.c.connection_name == func.any(bindparam("names", type_=ARRAY(Text))),
        _EXPECTED,
    )
    .distinct()
)

_SUSPECTS = (
    select(
        agent.c.id,
        agent.c.connection_name,
        agent.c.suspected_at,
        extract("epoch", func.clock_timestamp() - agent.c.suspected_at).label("age"),
    )
    .where(and_(_SUSPECTED, _EXPECTED, agent.c.connection_name.is_not(None)))
    .order_by(agent.c.suspected_at)
    .limit(bindparam("limit"))
)


class Suspect(NamedTuple):
    """An agent whose connection is gone."""

    id: UUID
    connection_name: str
    suspected_at: datetime
    age: float
    """Seconds since then, by the database's clock."""


async def living(db: AsyncConnection, names: Collection[str]) -> set[str]:
    """Those of these connection names that belong to an agent which is expected to live."""
    return set((await db.scalars(_LIVING, {"names": list(names)})).all())


async def suspects(db: AsyncConnection, *, limit: int) -> list[Suspect]:
    """The agents under suspicion, the longest first."""
    rows = await db.execute(_SUSPECTS, {"limit": limit})
    return [Suspect(row.id, row.connection_name, row.suspected_at, float(row.age)) for row in rows]
