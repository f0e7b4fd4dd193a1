"""Events as they are kept in the database, and how far the stream has them."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue, StringConstraints

from bus.contract import MAX_INT8, Id, ListOf, NotFound, Query, Reply, Text, Time

_EXAMPLE_ENTITY = "0199c0de-0000-7000-8000-000000000001"

LogPosition = Annotated[int, Field(ge=1, le=MAX_INT8)]
"""Place in the log, as ``Fleet-Position`` says it: unique, increasing per entity."""

EventType = Annotated[
    str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*$", max_length=200)
]
"""What happened, ``task.completed``."""

EntityId = Annotated[Text, StringConstraints(min_length=1, max_length=200)]
"""Whom it happened to: the id of a task, phase, …"""

WaitMilliseconds = Annotated[int, Field(ge=0, le=60_000)]
"""How long to wait, in milliseconds, up to a minute."""


class EventNotFound(NotFound, detail="event {id} is not in the log"):
    """There is no such event, or it is older than the log goes back."""

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
    """The body: the entity as it was afterwards, and what the fact adds."""
    shortened: bool = False
    """Whether the body is cut, for it does not fit one message: texts end in "…", the largest
    members are left out."""


class Change(Reply):
    """A field of an entity that an event changed."""

    field: str
    before: JsonValue
    after: JsonValue


class TimelineItem(Reply):
    """What happened to an entity at one point, and what that changed."""

    id: Id
    position: LogPosition
    time: Time
    type: EventType
    cause: str | None
    version: int | None
    """Of the entity, afterwards."""
    changes: list[Change]
    """Against the event before; none for the first one, and ``version`` and times left out."""
    facts: dict[str, JsonValue]
    """What the event says besides the entity: ``previous_status``, a reason, …"""
    shortened: bool = False
    """Whether changes and facts are those of a cut body: see ``db.events.get``."""


class Publication(Reply):
    """Whether the stream holds everything of a transaction."""

    position: LogPosition
    published: bool
    """False: not yet, when the time to wait was over."""


class ListEvents(ListOf[RecordedEvent], subject="db.events.list"):
    """The log of all events, by position, for as long as the database keeps it.

    A page holds as many as fit one message, so it may end before ``limit``.
    """

    type: EventType | None = None
    entity: EntityId | None = None
    since: Time | None = None
    """Only what was recorded then or later."""
    until: Time | None = None
    """Only what was recorded before."""
    order: Literal["position", "-position"] = "position"
    """``-`` begins with the newest."""
    count: Literal["none"] = "none"
    """The log is not counted: that would take the longer, the longer it is."""


class GetEvent(Query[RecordedEvent], subject="db.events.get", errors=(EventNotFound,)):
    """One event by its id, ``ce-id``."""

    id: Id


class ListTimeline(
    ListOf[TimelineItem], subject="db.events.timeline", example={"entity": _EXAMPLE_ENTITY}
):
    """The whole story of one entity: what happened to it, why, and what that changed.

    A page holds as many as fit one message, so it may end before ``limit``.
    """

    entity: EntityId
    order: Literal["position"] = "position"
    """As it happened."""
    count: Literal["none"] = "none"
    """Not counted."""


class WaitForPosition(
    Query[Publication], subject="db.events.wait", example={"position": 42, "timeout_ms": 2000}
):
    """Answer once the stream holds what a command told, named by its reply's ``Fleet-Position``.

    Whoever reads the stream after that has it before them. Waits no longer than ``timeout_ms``,
    and than the request's own deadline, which is refused with ``deadline_exceeded``.
    """

    position: LogPosition
    timeout_ms: WaitMilliseconds = 5_000
