"""Queries of initiatives."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, delete, exists, func, select
from sqlalchemy.dialects.postgresql import JSON, aggregate_order_by
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage import Listing, columns, contains, entity_from, equal
from contracts.planning.initiatives import (
    FindInitiative,
    Initiative,
    InitiativeNotFound,
    InitiativeOverview,
    ListInitiatives,
    PhaseProgress,
    PhaseSummary,
    TaskCounts,
)
from persistence.planning import deletion as _deletion
from persistence.planning.deletion import Going
from persistence.planning.tables import (
    InitiativeProject,
    initiative,
    initiative_project,
    phase,
    task,
)

Listing(
    ListInitiatives,
    {
        **equal(initiative, "status"),
        "project_id": exists().where(
            initiative_project.c.initiative_id == initiative.c.id,
            *equal(initiative_project, "project_id").values(),
        ),
        "search": contains("search", initiative.c.name),
    },
)


async def find(db: AsyncConnection, query: FindInitiative) -> Initiative:
    """The initiative with this reference, or the oldest of this name."""
    if query.external_ref is not None:
        named = initiative.c.external_ref == query.external_ref
    else:
        named = initiative.c.name == query.name
    oldest = columns(Initiative).where(named).order_by(initiative.c.created_at, initiative.c.id)
    row = (await db.execute(oldest.limit(1))).one_or_none()
    if row is None:
        raise InitiativeNotFound(external_ref=query.external_ref, name=query.name)
    return entity_from(Initiative, row)


async def overview(db: AsyncConnection, id_: UUID) -> InitiativeOverview:
    """An initiative, its phases and how many tasks have which status, in one statement."""
    counts = _task_counts()
    summary = {name: phase.c[name] for name in PhaseSummary.model_fields}
    progress = _object(
        phase=_object(**summary),
        tasks=select(counts).where(task.c.in_phase_id == phase.c.id).scalar_subquery(),
    )
    phases = select(
        func.json_agg(aggregate_order_by(progress, phase.c.position, phase.c.id), type_=JSON)
    )
    phases = phases.where(phase.c.initiative_id == initiative.c.id)
    totals = select(counts).where(task.c.initiative_id == initiative.c.id)
    row = (
        await db.execute(
            columns(Initiative)
            .add_columns(
                phases.scalar_subquery().label("phases"), totals.scalar_subquery().label("tasks")
            )
            .where(initiative.c.id == id_)
        )
    ).one_or_none()
    if row is None:
        raise InitiativeNotFound(id=id_)
    return InitiativeOverview(
        initiative=entity_from(Initiative, row),
        phases=[PhaseProgress.model_validate(each) for each in row.phases or []],
        tasks=TaskCounts.model_validate(row.tasks),
    )


async def project_ids(db: AsyncConnection, id_: UUID) -> list[UUID]:
    """The projects of an initiative."""
    statement = select(initiative_project.c.project_id).where(
        initiative_project.c.initiative_id == id_
    )
    return list((await db.execute(statement.order_by(initiative_project.c.project_id))).scalars())


def about(initiative: Initiative, ids: Iterable[UUID], *, now: datetime) -> list[InitiativeProject]:
    """The rows by which an initiative is about these projects."""
    return [
        InitiativeProject.first(now=now, initiative_id=initiative.id, project_id=project_id)
        for project_id in ids
    ]


async def remove_projects(db: AsyncConnection, id_: UUID, ids: Iterable[UUID]) -> None:
    """Let an initiative no longer be about these projects."""
    await db.execute(
        delete(initiative_project).where(
            initiative_project.c.initiative_id == id_,
            initiative_project.c.project_id == func.any(list(ids)),
        )
    )


async def contents(db: AsyncConnection, locked: Initiative) -> tuple[Going, Going]:
    """The phases and the tasks that go along when this initiative is deleted."""
    phases = await _deletion.phases_going(db, locked.id)
    return phases, await _deletion.tasks_going(db, task.c.initiative_id == locked.id)


def _task_counts() -> ColumnElement[Any]:
    counts = {
        status: func.count().filter(task.c.status == status) for status in TaskCounts.model_fields
    }
    return _object(**counts)


def _object(**members: ColumnElement[Any]) -> ColumnElement[Any]:
    flat = [part for name, value in members.items() for part in (name, value)]
    return func.json_build_object(*flat, type_=JSON)
