"""What there is in the end: the tables, the outbox, the stream, as plain values."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Row:
    """A row of the outbox."""

    position: int
    xid: int
    event_id: str
    type: str
    entity_id: str
    data: str
    cause: str | None = None

    @property
    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.data)
        return body


@dataclass(frozen=True)
class Told:
    """An event that the stream holds."""

    sequence: int
    event_id: str
    type: str
    entity_id: str
    data: str
    position: int
    cause: str | None = None


@dataclass(frozen=True)
class Repair:
    """What a reconciler said before it brought events back."""

    at: float
    said: str


@dataclass(frozen=True)
class Outage:
    """A time in which no request was answered; what was live then holds anew from its end on."""

    began: datetime
    ended: datetime


@dataclass(frozen=True)
class World:
    """What is found once the faults are over."""

    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The rows of the tasks by id, in the form of the contract."""
    outbox: list[Row] = field(default_factory=list)
    stream: list[Told] = field(default_factory=list)
    rested: float | None = 0.0
    """Seconds from healing until all was at rest; None: not within the limit."""
    repairs: list[Repair] = field(default_factory=list)
    outages: list[Outage] = field(default_factory=list)
    """All that the database has noted."""
