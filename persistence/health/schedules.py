"""Queries of schedules."""

from __future__ import annotations

from bus.storage import Listing, equal
from contracts.health.schedules import ListSchedules
from persistence.health.tables import schedule

Listing(ListSchedules, equal(schedule, "enabled"))
