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
    """A schedule of checks: when they are due, and what they include."""

    name: Name
    """Unique among schedules."""
    cron: Cron
    """Each local time is due once: a time that a change of clocks skips is due at the first moment
    after it, and a time that comes twice is due when it comes first."""
    time_zone: TimeZone = "UTC"
    """The time zone of the cron fields."""
    enabled: bool
    timeout_minutes: TimeoutMinutes
    include_unit: bool
    include_integration: bool
    include_performance: bool
    worker_filters: WorkerFilters | None
    next_due_at: Time | None
    """Null if it is not enabled."""
    last_due_at: Time | None


class ScheduleChanged(Event, type="schedule.changed"):
    """A schedule was created or changed."""

    schedule: Schedule


class ScheduleDue(Event, type="schedule.due"):
    """It is time for a check: emitted once for each due time, and when somebody asks for it.

    Due times that passed while the service was not running share one event, for the latest of them.
    """

    schedule: Schedule
    due_at: Time
    trigger: Literal["cron", "on_demand"]


class ScheduleDeleted(Event, type="schedule.deleted"):
    """A schedule was deleted."""

    schedule: Schedule
    """The schedule as it last was, with its version one higher."""


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
    """Upsert a schedule by its name: it gets the values of the request; omitted fields get
    defaults.

    If there is none, it is created. A request that changes nothing emits no event.
    """

    name: Name
    cron: Cron
    """Each local time is due once: a time that a change of clocks skips is due at the first moment
    after it, and a time that comes twice is due when it comes first. So a schedule of every 15
    minutes pauses during a repeated hour."""
    time_zone: KnownTimeZone = "UTC"
    """The time zone of the cron fields: a name of the IANA database, like ``Europe/Berlin``."""
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
    """Get one schedule by its name."""

    name: Name


class ListSchedules(ListOf[Schedule], subject="db.schedules.list", example={"enabled": True}):
    """List schedules, a page at a time."""

    enabled: bool | None = None
    order: Literal["created_at", "-created_at", "name", "-name"] = "created_at"


class DeleteSchedule(
    Command[ScheduleDeletion],
    subject="db.schedules.delete",
    errors=(ScheduleNotFound,),
    emits=(ScheduleDeleted,),
    example={"name": "nightly"},
):
    """Delete a schedule; the checks that were started for it remain."""

    name: Name


class TriggerSchedule(
    Command[Schedule],
    subject="db.schedules.trigger",
    errors=(ScheduleNotFound,),
    emits=(ScheduleDue,),
    example={"name": "nightly"},
):
    """Trigger a schedule: it is due now, enabled or not; its regular times stay as they are."""

    name: Name
