"""Queries of generations."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import Page
from bus.storage import Listing, equal
from contracts.documents.generations import Generation, ListGenerations
from persistence.documents.tables import generation

_LIST = Listing(Generation, equal(generation, "repo_url", "is_dry_run"))


async def page(db: AsyncConnection, query: ListGenerations) -> Page[Generation]:
    """A page of the generations that pass the filters."""
    return await _LIST.page(db, query)
