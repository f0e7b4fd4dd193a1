"""What the relay of a process did."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(slots=True)
class RelayMetrics:
    """What the relay of this process did; `backlog` is known while it is the active one.

    `errors` counts what interrupted it, `publish_errors` those of them that came from the stream.
    `foreign` are messages that it removed from the stream, `shortened` events that did not fit.
    `trouble` is what is in its way now, and what helps.
    """

    active: bool = False
    takeovers: int = 0
    published: int = 0
    repaired: int = 0
    foreign: int = 0
    shortened: int = 0
    last_position: int = 0
    errors: int = 0
    publish_errors: int = 0
    last_error: str = ""
    trouble: str = ""
    holes: int = 0
    backlog: int | None = None
    backlog_age: timedelta | None = None
