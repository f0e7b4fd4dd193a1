"""Queries of generations."""

from __future__ import annotations

from sqlalchemy import ColumnElement
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts._declare import Page
from contracts.documents.generations import Generation, ListGenerations
from persistence import _paging
from persistence.documents.tables import generation


async def page(db: AsyncConnection, query: ListGenerations) -> Page[Generation]:
    """A page of the generations that pass the filters."""
    where: list[ColumnElement[bool]] = []
    if query.repo_url is not None:
        where.append(generation.c.repo_url == query.repo_url)
    if query.is_dry_run is not None:
        where.append(generation.c.is_dry_run == query.is_dry_run)
    return await _paging.page(db, query, Generation, where)
