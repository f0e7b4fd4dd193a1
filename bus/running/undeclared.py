"""What a handler does that its declaration does not say: a bug, found while it is being tested.

In production what happened counts: it is kept as it is, and the log and the metrics say so.
"""

from __future__ import annotations

import logging

from bus.contract.event import Event
from bus.handling.shapes import Handling
from bus.kit.logs import limited

log = logging.getLogger("fleetbus.bus")


class Undeclared(Exception):
    """A handler did what its declaration does not say."""


def report(handling: Handling, what: str, *, strict: bool) -> None:
    """Fail the transaction if ``strict``; otherwise log and count it, and go on.

    ``what`` is a text of the code, without anything of a caller.
    """
    words = f"the {handling.shape} {handling.name} {what}"
    if strict:
        raise Undeclared(words)
    limited(log, logging.ERROR, f"undeclared: {words}", "a bug: %s", words)


def report_event(handling: Handling, event: Event, *, strict: bool) -> None:
    """Report an event that the operation, reaction or job does not declare."""
    report(handling, f"emits {event.fact.type}, which it does not declare", strict=strict)
