"""What handlers are written with: shapes, transitions and changes."""

from bus.handling.changes import changes, values_of, with_values
from bus.handling.clocks import before, reported
from bus.handling.decisions import Decision, Emit, carry_out, emit_all
from bus.handling.published import Published
from bus.handling.shapes import decider, handler, periodic, query, reaction, together
from bus.handling.transitions import Transitions

__all__ = [
    "Decision",
    "Emit",
    "Published",
    "Transitions",
    "before",
    "carry_out",
    "changes",
    "decider",
    "emit_all",
    "handler",
    "periodic",
    "query",
    "reaction",
    "reported",
    "together",
    "values_of",
    "with_values",
]
