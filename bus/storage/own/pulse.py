"""When requests were last answered for certain, and leases that hold anew after an outage.

A lease is a promise of two: whoever has it is heard of, and the service listens. Where the service
did not, nobody can be blamed for silence.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import DateTime, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage.driver import driver_of

LEASE_HEARTBEATS: Final = 3
"""How many heartbeats a lease holds for; with fewer than two the loss of one would be a crash."""

# What a heartbeat, a renewal and their idempotency rows write to: who gets these locks could have
# answered. When the moment is lost in a crash of the database, an earlier one is as good.
_REACH = """
    SET LOCAL synchronous_commit = off;
    LOCK TABLE planning.tasks, agents.agents, bus.requests IN ROW EXCLUSIVE MODE
"""

_BEFORE = text("SELECT served_at FROM bus.pulse WHERE name = 'service' FOR UPDATE")

_SERVED = text("""
    UPDATE bus.pulse SET served_at = clock_timestamp() WHERE name = 'service' RETURNING served_at
""")

_NOTE_OUTAGE = text("""
    UPDATE bus.pulse SET interrupted_at = :since, restored_at = :now WHERE name = 'service'
""").bindparams(
    bindparam("since", type_=DateTime(timezone=True)),
    bindparam("now", type_=DateTime(timezone=True)),
)

_SINCE_OUTAGE = text("""
    SELECT extract(epoch FROM clock_timestamp() - restored_at) FROM bus.pulse
    WHERE name = 'service' AND restored_at IS NOT NULL
""")

_SERVED_AT = text("SELECT served_at FROM bus.pulse WHERE name = 'service'")


def _restoring(table: str, live: str, values: str) -> str:
    """Locks what is still live in the order of ids, as everybody does, and gives it its time."""
    return f"""
        WITH live AS (
            SELECT id FROM {table} WHERE {live} > :since ORDER BY id FOR NO KEY UPDATE
        )
        UPDATE {table} AS lost SET {values} FROM live WHERE lost.id = live.id
    """


# In the order in which everybody locks: tasks, then agents.
_RESTORE = {
    "tasks": _restoring(
        "planning.tasks",
        "status = 'in_progress' AND lease_expires_at",
        """lease_expires_at = greatest(
            lost.lease_expires_at, :now + make_interval(secs => coalesce(lost.lease_seconds, 300))
        )""",
    ),
    "agents": _restoring(
        "agents.agents",
        "lease_expires_at IS NOT NULL AND lease_expires_at",
        f"""lease_expires_at = greatest(
            lost.lease_expires_at,
            :now + make_interval(secs => {LEASE_HEARTBEATS} * lost.heartbeat_interval_s)
        )""",
    ),
    "test runs": _restoring(
        "health.test_runs",
        "status = 'running' AND timeout_at",
        "timeout_at = lost.timeout_at + (CAST(:now AS timestamptz) - :since)",
    ),
    "checks": _restoring(
        "health.checks",
        "status = 'running' AND timeout_at",
        "timeout_at = lost.timeout_at + (CAST(:now AS timestamptz) - :since)",
    ),
}


@dataclass(frozen=True)
class Recovery:
    """An outage that is over, and how much of what was live holds anew."""

    seconds: float
    counts: dict[str, int]


async def reach(db: AsyncConnection) -> None:
    """Come as far as a heartbeat must; raises what it would be stopped by."""
    await driver_of(db).execute(_REACH)


async def beat(db: AsyncConnection, *, outage_after: float) -> Recovery | None:
    """Note that requests are answered now; after an outage leases have their full length again.

    What had run out before the outage began is not revived.
    """
    since = (await db.execute(_BEFORE)).scalar_one()
    now = (await db.execute(_SERVED)).scalar_one()
    if now - since <= timedelta(seconds=outage_after):
        return None
    values = {"since": since, "now": now}
    await db.execute(_NOTE_OUTAGE, values)
    times = [bindparam(name, type_=DateTime(timezone=True)) for name in values]
    counts = {
        what: int((await db.execute(text(statement).bindparams(*times), values)).rowcount)
        for what, statement in _RESTORE.items()
    }
    return Recovery((now - since).total_seconds(), counts)


async def served_at(db: AsyncConnection) -> datetime:
    """The last moment at which requests were answered for certain."""
    found = (await db.execute(_SERVED_AT)).scalar_one()
    assert isinstance(found, datetime)
    return found


async def since_outage(db: AsyncConnection) -> float | None:
    """Seconds since the last outage was over; None if there was none."""
    found = (await db.execute(_SINCE_OUTAGE)).scalar_one_or_none()
    return None if found is None else float(found)
