"""Events as the database keeps them, and how far the stream has them."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue, StringConstraints

from bus.contract import MAX_INT8, Id, ListOf, NotFound, Query, Reply, Text, Time

_EXAMPLE_ENTITY = "0199c0de-0000-7000-8000-000000000001"

LogPosition = Annotated[int, Field(ge=1, le=MAX_INT8)]
"""The place in the log, as in ``Fleet-Position``: unique, increasing per entity."""

EventType = Annotated[
    str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*$", max_length=200)
]
"""What happened, for example ``task.completed``."""

EntityId = Annotated[Text, StringConstraints(min_length=1, max_length=200)]
"""What it happened to: the id of a task, a phase, …"""

WaitMilliseconds = Annotated[int, Field(ge=0, le=60_000)]
"""How long to wait, in milliseconds, up to a minute."""


class EventNotFound(NotFound, detail="event {id} is not in the log"):
    """There is no such event, or the log does not go back that far."""

    id: Id


class RecordedEvent(Reply):
    """An event as its transaction recorded it."""

    id: Id
    position: LogPosition
    type: EventType
    entity: EntityId
    time: Time
    cause: str | None
    """The idempotency key of the command, ``reaction:<name>`` or ``sweeper:<name>``."""
    traceparent: str | None
    data: dict[str, JsonValue]
    """The body: the entity as it was afterwards, and further facts of the event."""
    shortened: bool = False
    """Whether the body is cut because it does not fit into one message: texts end in "…", the
    largest members are left out."""


class Change(Reply):
    """A field of an entity that an event changed."""

    field: str
    before: JsonValue
    after: JsonValue


class TimelineItem(Reply):
    """Something that happened to an entity, and what it changed."""

    id: Id
    position: LogPosition
    time: Time
    type: EventType
    cause: str | None
    version: int | None
    """The entity's version afterwards."""
    changes: list[Change]
    """Compared with the previous event; empty for the first one; without ``version`` and times."""
    facts: dict[str, JsonValue]
    """What the event says besides the entity: ``previous_status``, a reason, …"""
    shortened: bool = False
    """Whether the changes and facts are those of a body that was cut: see ``db.events.get``."""


class Publication(Reply):
    """Whether the stream holds all events of a transaction."""

    position: LogPosition
    published: bool
    """False if it did not hold them yet when the time to wait was up."""


class ListEvents(ListOf[RecordedEvent], subject="db.events.list"):
    """List the log of all events, by position, for as long as the database keeps it.

    A page holds as many as fit into one message, so it may end before ``limit``.
    """

    type: EventType | None = None
    entity: EntityId | None = None
    since: Time | None = None
    """Only events that were recorded then or later."""
    until: Time | None = None
    """Only events that were recorded before then."""
    order: Literal["position", "-position"] = "position"
    """``-position`` begins with the newest."""
    count: Literal["none"] = "none"
    """The log is not counted: counting would take longer the longer the log is."""


class GetEvent(Query[RecordedEvent], subject="db.events.get", errors=(EventNotFound,)):
    """Get one event by its id, ``ce-id``."""

    id: Id


class ListTimeline(
    ListOf[TimelineItem], subject="db.events.timeline", example={"entity": _EXAMPLE_ENTITY}
):
    """List the whole history of one entity: what happened to it, why, and what that changed.

    A page holds as many as fit into one message, so it may end before ``limit``.
    """

    entity: EntityId
    order: Literal["position"] = "position"
    """In the order in which it happened."""
    count: Literal["none"] = "none"
    """Not counted."""


class WaitForPosition(
    Query[Publication], subject="db.events.wait", example={"position": 42, "timeout_ms": 2000}
):
    """Wait until the stream holds a command's events, named by its reply's ``Fleet-Position``.

    A reader of the stream will find them from then on. The wait lasts no longer than
    ``timeout_ms``; if the request's own deadline comes first, the answer is ``deadline_exceeded``.
    """

    position: LogPosition
    timeout_ms: WaitMilliseconds = 5_000
