"""Queries of test definitions."""

from __future__ import annotations

from bus.storage import Listing, equal
from contracts.health.test_definitions import ListTestDefinitions
from persistence.health.tables import test_definition

Listing(ListTestDefinitions, equal(test_definition, "category", "enabled"))
