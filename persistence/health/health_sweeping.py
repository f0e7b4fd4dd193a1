"""What is due, what took too long and what is too old, each locked in bounded numbers."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, DateTime, Integer, bindparam, literal_column, text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import Entity
from bus.storage import TABLES, columns, entity_from
from contracts.health.checks import WorkerCheck
from contracts.health.test_runs import TestRun
from persistence.health.tables import check, test_run, worker_check

E = TypeVar("E", bound=Entity)

# Written into the texts: a plan for any value of a parameter could not use the partial indexes.
_RUNNING: ColumnElement[str] = literal_column("'running'")


async def lock_due(db: AsyncConnection, entity: type[E], *, now: datetime, limit: int) -> list[E]:
    """Lock what has a due time that has come, the longest due first."""
    due = TABLES[entity].c.next_due_at
    return await _lock(db, entity, due <= now, due, limit)


async def lock_expired_runs(db: AsyncConnection, *, now: datetime, limit: int) -> list[TestRun]:
    """Lock runs that take longer than they may."""
    expired = (test_run.c.status == _RUNNING) & (test_run.c.timeout_at < now)
    return await _lock(db, TestRun, expired, test_run.c.timeout_at, limit)


async def lock_unanswered(db: AsyncConnection, *, now: datetime, limit: int) -> list[WorkerCheck]:
    """Lock the open parts of checks whose time is over."""
    statement = (
        columns(WorkerCheck)
        .join(check, check.c.id == worker_check.c.check_id)
        .where(
            check.c.status == _RUNNING,
            check.c.timeout_at < now,
            worker_check.c.status.in_(("pending", "running")),
        )
        .order_by(check.c.timeout_at, worker_check.c.id)
        .limit(limit)
        .with_for_update(of=worker_check, key_share=True, skip_locked=True)
    )
    return [entity_from(WorkerCheck, row) for row in await db.execute(statement)]


async def _lock(
    db: AsyncConnection,
    entity: type[E],
    where: ColumnElement[bool],
    order: ColumnElement[Any],
    limit: int,
) -> list[E]:
    statement = (
        columns(entity)
        .where(where)
        .order_by(order, TABLES[entity].c.id)
        .limit(limit)
        .with_for_update(key_share=True, skip_locked=True)
    )
    return [entity_from(entity, row) for row in await db.execute(statement)]


_LOCK_OLD_RUNS = text(
    """
    SELECT id FROM health.test_runs WHERE id IN (
        SELECT old.id FROM health.test_definitions AS definition
        CROSS JOIN LATERAL (
            SELECT started_at, id FROM health.test_runs
            WHERE test_definition_id = definition.id
            ORDER BY started_at DESC, id DESC OFFSET :kept - 1 LIMIT 1
        ) AS last_kept
        CROSS JOIN LATERAL (
            SELECT id FROM health.test_runs
            WHERE test_definition_id = definition.id AND started_at < :before
            AND (started_at, id) < (last_kept.started_at, last_kept.id)
            ORDER BY started_at, id LIMIT :limit
        ) AS old
        LIMIT :limit
    )
    ORDER BY id FOR UPDATE SKIP LOCKED
    """
).bindparams(
    bindparam("kept", type_=Integer),
    bindparam("limit", type_=Integer),
    bindparam("before", type_=DateTime(timezone=True)),
)

_FORGET_CALLS = text(
    """
    DELETE FROM health.model_calls WHERE id IN (
        SELECT id FROM health.model_calls WHERE created_at < :before
        ORDER BY created_at, id LIMIT :limit
    )
    """
).bindparams(bindparam("limit", type_=Integer), bindparam("before", type_=DateTime(timezone=True)))

_MERGE_RUNS = text(
    """
    WITH crowded AS (
        SELECT hour, status FROM health.run_tallies
        GROUP BY hour, status HAVING count(*) > 1 LIMIT :limit
    ), gone AS (
        DELETE FROM health.run_tallies AS t USING crowded AS c
        WHERE t.hour = c.hour AND t.status = c.status RETURNING t.hour, t.status, t.runs
    ), merged AS (
        INSERT INTO health.run_tallies (id, hour, status, runs)
        SELECT uuidv7(), hour, status, sum(runs) FROM gone
        GROUP BY hour, status HAVING sum(runs) <> 0
    )
    SELECT count(*) FROM crowded
    """
).bindparams(bindparam("limit", type_=Integer))

_MERGE_CALLS = text(
    """
    WITH crowded AS (
        SELECT day, provider, model FROM health.model_tallies
        GROUP BY day, provider, model HAVING count(*) > 1 LIMIT :limit
    ), gone AS (
        DELETE FROM health.model_tallies AS t USING crowded AS c
        WHERE t.day = c.day AND t.provider = c.provider AND t.model = c.model
        RETURNING t.*
    ), merged AS (
        INSERT INTO health.model_tallies
            (id, day, provider, model, calls, tokens, cost_usd, timed_calls, latency_ms)
        SELECT uuidv7(), day, provider, model, sum(calls), sum(tokens), sum(cost_usd),
               sum(timed_calls), sum(latency_ms)
        FROM gone GROUP BY day, provider, model HAVING sum(calls) <> 0
    )
    SELECT count(*) FROM crowded
    """
).bindparams(bindparam("limit", type_=Integer))


async def lock_old_runs(
    db: AsyncConnection, *, before: datetime, kept: int, limit: int
) -> list[UUID]:
    """Lock runs older than this, but never the newest ``kept`` of a definition."""
    values = {"before": before, "kept": kept, "limit": limit}
    return list((await db.execute(_LOCK_OLD_RUNS, values)).scalars())


async def forget_calls(db: AsyncConnection, *, before: datetime, limit: int) -> int:
    """Delete calls to models older than this."""
    return int((await db.execute(_FORGET_CALLS, {"before": before, "limit": limit})).rowcount)


async def merge_tallies(db: AsyncConnection, *, limit: int) -> int:
    """Let one row stand for all that were appended for an hour or day; returns for how many."""
    runs = (await db.execute(_MERGE_RUNS, {"limit": limit})).scalar_one()
    calls = (await db.execute(_MERGE_CALLS, {"limit": limit})).scalar_one()
    return int(max(runs, calls))
