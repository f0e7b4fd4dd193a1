"""Schedules: when the workers of the fleet are to be checked."""

from typing import Literal

from pydantic import Field

from bus.contract import (
    Command,
    Entity,
    Event,
    Id,
    KnownTimeZone,
    ListOf,
    Name,
    NotFound,
    Query,
    Reply,
    Time,
    TimeZone,
)
from contracts.health._fields import Cron, InvalidSchedule
from contracts.health._workers import TimeoutMinutes, WorkerFilters

ScheduleId = Id


class ScheduleNotFound(NotFound):
    """There is no such schedule."""

    id: ScheduleId | None = None
    name: Name | None = None

    @property
    def detail(self) -> str:
        """Which schedule was asked for."""
        return f"schedule {self.id or self.name} does not exist"


class Schedule(Entity, not_found=ScheduleNotFound):
    """When the workers are to be checked, and what a check started then includes."""

    name: Name
    """Unique among schedules."""
    cron: Cron
    """Each local time is due once: one that a change of clocks leaves out at the first moment after
    it, one that comes twice when it comes first."""
    time_zone: TimeZone = "UTC"
    """Whose clocks the cron fields are read on."""
    enabled: bool
    timeout_minutes: TimeoutMinutes
    include_unit: bool
    include_integration: bool
    include_performance: bool
    worker_filters: WorkerFilters | None
    next_due_at: Time | None
    """Null while it is not enabled."""
    last_due_at: Time | None


class ScheduleChanged(Event, type="schedule.changed"):
    """A schedule was made, or says something else than before."""

    schedule: Schedule


class ScheduleDue(Event, type="schedule.due"):
    """It is time for a check: told once for each due time, and when somebody asks for it.

    Due times that went by while nobody looked are told together, as the latest of them.
    """

    schedule: Schedule
    due_at: Time
    trigger: Literal["cron", "on_demand"]


class ScheduleDeleted(Event, type="schedule.deleted"):
    """A schedule is gone."""

    schedule: Schedule
    """As it was last, its version one higher."""


class ScheduleDeletion(Reply):
    """What was deleted."""

    id: ScheduleId
    name: Name


class UpsertSchedule(
    Command[Schedule],
    subject="db.schedules.upsert",
    errors=(InvalidSchedule,),
    emits=(ScheduleChanged,),
    example={"name": "nightly", "cron": "0 3 * * *", "time_zone": "Europe/Berlin"},
):
    """Let the schedule of this name be what the request says; what is left out has its default.

    Where there is none it is made. What changes nothing tells nothing.
    """

    name: Name
    cron: Cron
    """Each local time is due once: one that a change of clocks leaves out at the first moment after
    it, one that comes twice when it comes first. So every 15 minutes pauses in a repeated hour."""
    time_zone: KnownTimeZone = "UTC"
    """Whose clocks the cron fields are read on: a name of the IANA database, like
    ``Europe/Berlin``."""
    enabled: bool = True
    timeout_minutes: TimeoutMinutes = 30
    include_unit: bool = True
    include_integration: bool = True
    include_performance: bool = True
    worker_filters: WorkerFilters | None = None


class GetSchedule(
    Query[Schedule],
    subject="db.schedules.get",
    errors=(ScheduleNotFound,),
    example={"name": "nightly"},
):
    """One schedule by its name."""

    name: Name


class ListSchedules(ListOf[Schedule], subject="db.schedules.list", example={"enabled": True}):
    """Schedules, a page at a time."""

    enabled: bool | None = None
    order: Literal["created_at", "-created_at", "name", "-name"] = "created_at"


class DeleteSchedule(
    Command[ScheduleDeletion],
    subject="db.schedules.delete",
    errors=(ScheduleNotFound,),
    emits=(ScheduleDeleted,),
    example={"name": "nightly"},
):
    """Delete a schedule; the checks that it led to remain."""

    name: Name


class TriggerSchedule(
    Command[Schedule],
    subject="db.schedules.trigger",
    errors=(ScheduleNotFound,),
    emits=(ScheduleDue,),
    example={"name": "nightly"},
):
    """Say that a schedule is due now, enabled or not; its own times stay."""

    name: Name
