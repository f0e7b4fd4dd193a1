"""What handlers are written with: shapes, transitions and changes."""

from bus.handling.changes import changes, values_of, with_values
from bus.handling.clocks import before, reported
from bus.handling.decisions import Decision, Emit, carry_out
from bus.handling.dependencies import Configured
from bus.handling.preparing import Slow
from bus.handling.published import Published
from bus.handling.shapes import decider, handler, prepare, query, together
from bus.handling.transitions import Transitions
from bus.handling.unasked import periodic, reaction

__all__ = [
    "Configured",
    "Decision",
    "Emit",
    "Published",
    "Slow",
    "Transitions",
    "before",
    "carry_out",
    "changes",
    "decider",
    "handler",
    "periodic",
    "prepare",
    "query",
    "reaction",
    "reported",
    "together",
    "values_of",
    "with_values",
]
