"""Queries of checks and of the workers in them."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage import Listing, columns, entity_from, equal
from contracts.health.checks import (
    CheckedWorker,
    ListChecks,
    WorkerCheck,
    WorkerCheckNotFound,
    WorkerCheckSummary,
    WorkerFilters,
)
from persistence.health.tables import check, worker_check

Listing(ListChecks, equal(check, "status", "trigger_type"))


async def known_workers(
    db: AsyncConnection, filters: WorkerFilters, *, limit: int
) -> list[CheckedWorker]:
    """The workers of earlier checks that fulfil the filters, as they were named last."""
    name, type_, url = (worker_check.c[f"worker_{part}"] for part in ("name", "type", "url"))
    newest = (
        select(name.label("name"), type_.label("type"), url.label("url"))
        .ext(distinct_on(name))
        .order_by(name, worker_check.c.requested_at.desc(), worker_check.c.id.desc())
    )
    if filters.names is not None:
        newest = newest.where(name == func.any(filters.names))
    known = newest.subquery()
    statement = select(known).order_by(known.c.name).limit(limit)
    if filters.types is not None:
        statement = statement.where(known.c.type == func.any(filters.types))
    return [CheckedWorker(**row._mapping) for row in await db.execute(statement)]  # noqa: SLF001  SQLAlchemy's public name


async def summaries(db: AsyncConnection, id_: UUID) -> list[WorkerCheckSummary]:
    """The workers of a check by name, without what is long."""
    wanted = [worker_check.c[field] for field in WorkerCheckSummary.model_fields]
    statement = select(*wanted).where(worker_check.c.check_id == id_)
    rows = await db.execute(statement.order_by(worker_check.c.worker_name))
    return [WorkerCheckSummary.model_validate(dict(row._mapping)) for row in rows]  # noqa: SLF001  SQLAlchemy's public name


async def latest_of(db: AsyncConnection, worker_name: str) -> WorkerCheck:
    """The last check that a worker was part of, or ``WorkerCheckNotFound``."""
    order = worker_check.c.requested_at.desc(), worker_check.c.id.desc()
    statement = columns(WorkerCheck).where(worker_check.c.worker_name == worker_name)
    row = (await db.execute(statement.order_by(*order).limit(1))).one_or_none()
    if row is None:
        raise WorkerCheckNotFound(worker_name=worker_name)
    return entity_from(WorkerCheck, row)


async def lock_open_workers(db: AsyncConnection, id_: UUID) -> list[WorkerCheck]:
    """Lock the parts of a check that are waited for, before the check itself as reports do."""
    statement = (
        columns(WorkerCheck)
        .where(worker_check.c.check_id == id_, worker_check.c.status.in_(("pending", "running")))
        .order_by(worker_check.c.id)
        .with_for_update(key_share=True)
    )
    return [entity_from(WorkerCheck, row) for row in await db.execute(statement)]


async def mean_scores(db: AsyncConnection, ids: Iterable[UUID]) -> dict[UUID, float | None]:
    """The mean score of the workers in each of these checks; None where none gave one."""
    statement = (
        select(worker_check.c.check_id, func.avg(worker_check.c.score))
        .where(worker_check.c.check_id == func.any(list(ids)))
        .group_by(worker_check.c.check_id)
    )
    return {id_: score for id_, score in await db.execute(statement)}  # noqa: C416  rows are tuples of two
