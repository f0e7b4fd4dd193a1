"""Queries of generations."""

from __future__ import annotations

from bus.storage import Listing, equal
from contracts.documents.generations import ListGenerations
from persistence.documents.tables import generation

Listing(ListGenerations, equal(generation, "repo_url", "is_dry_run"))
