"""Queries of projects."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import exists, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage import Listing, columns, contains, entity_from, equal, is_set
from contracts.planning.projects import (
    FindProject,
    ListProjects,
    Project,
    ProjectContents,
    ProjectNotFound,
)
from persistence.planning.tables import initiative_project, project

Listing(
    ListProjects,
    {
        "archived": is_set(project.c.archived_at),
        "initiative_id": exists().where(
            initiative_project.c.project_id == project.c.id,
            *equal(initiative_project, "initiative_id").values(),
        ),
        "search": contains("search", project.c.name, project.c.description),
    },
)


async def find(db: AsyncConnection, query: FindProject) -> Project:
    """The project with this name or address, or ``ProjectNotFound``."""
    named = project.c.name == query.name if query.name else project.c.url == query.url
    row = (await db.execute(columns(Project).where(named))).one_or_none()
    if row is None:
        raise ProjectNotFound(name=query.name, url=query.url)
    return entity_from(Project, row)


async def initiative_ids(db: AsyncConnection, id_: UUID) -> list[UUID]:
    """The initiatives that are about this project."""
    statement = select(initiative_project.c.initiative_id)
    found = await db.execute(statement.where(initiative_project.c.project_id == id_))
    return list(found.scalars())


async def contents(db: AsyncConnection, locked: Project) -> ProjectContents:
    """What goes along when this project is deleted."""
    links = select(func.count()).where(initiative_project.c.project_id == locked.id)
    return ProjectContents(initiative_links=(await db.execute(links)).scalar_one())
