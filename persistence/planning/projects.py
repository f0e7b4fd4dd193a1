"""Queries of projects."""

from __future__ import annotations

from sqlalchemy import ColumnElement, exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts._declare import Page
from contracts.planning.projects import (
    FindProject,
    ListProjects,
    Project,
    ProjectContents,
    ProjectNotFound,
)
from persistence import _paging
from persistence._entities import columns, entity_from
from persistence.planning.tables import initiative_project, project


async def find(db: AsyncConnection, query: FindProject) -> Project:
    """The project with this name or address, or ``ProjectNotFound``."""
    named = project.c.name == query.name if query.name else project.c.url == query.url
    row = (await db.execute(columns(Project).where(named))).one_or_none()
    if row is None:
        raise ProjectNotFound(name=query.name, url=query.url)
    return entity_from(Project, row)


async def page(db: AsyncConnection, query: ListProjects) -> Page[Project]:
    """A page of the projects that pass the filters."""
    where: list[ColumnElement[bool]] = []
    if query.archived is not None:
        archived = project.c.archived_at.is_not(None)
        where.append(archived if query.archived else ~archived)
    if query.initiative_id is not None:
        where.append(
            exists().where(
                initiative_project.c.project_id == project.c.id,
                initiative_project.c.initiative_id == query.initiative_id,
            )
        )
    if query.search is not None:
        where.append(
            or_(
                project.c.name.icontains(query.search, autoescape=True),
                project.c.description.icontains(query.search, autoescape=True),
            )
        )
    return await _paging.page(db, query, Project, where)


async def contents(db: AsyncConnection, locked: Project) -> ProjectContents:
    """What goes along when this project is deleted."""
    links = select(func.count()).where(initiative_project.c.project_id == locked.id)
    return ProjectContents(initiative_links=(await db.execute(links)).scalar_one())
