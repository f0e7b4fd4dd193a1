"""What the class statements of operations and events say, once they have been read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from contracts._errors import Refusal

if TYPE_CHECKING:
    from contracts._declare import Event, Reply


@dataclass(frozen=True)
class Declared:
    """What the class statement of an operation says."""

    subject: str
    kind: Literal["command", "query"]
    context: str
    noun: str
    verb: str
    reply: type[Reply]
    errors: tuple[type[Refusal], ...]
    emits: tuple[type[Event], ...]
    summary: str
    example: Mapping[str, Any]
    vital: bool
    """Whether somebody is wrongly taken for dead, or for living, where it comes too late: it waits
    behind no other work, and is not refused for it."""
    expensive: bool
    """Whether it always reads more the more there is: it keeps to connections for its like."""

    @property
    def endpoint(self) -> str:
        """The name of the NATS service endpoint: ``tasks_claim``."""
        return f"{self.noun}_{self.verb}"


@dataclass(frozen=True)
class Fact:
    """What the class statement of an event says."""

    type: str
    entity: str
    context: str
    summary: str
