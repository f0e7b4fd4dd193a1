"""What handlers are written with: shapes, transitions and changes."""

from bus.handling.changes import changes, described, made, replaced
from bus.handling.clocks import before, reported
from bus.handling.published import Published
from bus.handling.shapes import Decision, Emit, decider, handler, job, query, reaction, together
from bus.handling.transitions import Transitions

__all__ = [
    "Decision",
    "Emit",
    "Published",
    "Transitions",
    "before",
    "changes",
    "decider",
    "described",
    "handler",
    "job",
    "made",
    "query",
    "reaction",
    "replaced",
    "reported",
    "together",
]
