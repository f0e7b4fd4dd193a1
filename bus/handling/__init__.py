"""What handlers are written with: shapes, transitions and changes."""

from bus.handling.auditing import Audit
from bus.handling.changes import changes, values_of, with_values
from bus.handling.clocks import before, reported
from bus.handling.decisions import Decision, Emit, Kept, carry_out
from bus.handling.dependencies import Configured
from bus.handling.preparing import Slow
from bus.handling.published import Published
from bus.handling.shapes import decider, handler, prepare, query, together
from bus.handling.transitions import Transitions
from bus.handling.unasked import periodic, reaction
from bus.kit.tokens import new_token, same_secret, secret_hash

__all__ = [
    "Audit",
    "Configured",
    "Decision",
    "Emit",
    "Kept",
    "Published",
    "Slow",
    "Transitions",
    "before",
    "carry_out",
    "changes",
    "decider",
    "handler",
    "new_token",
    "periodic",
    "prepare",
    "query",
    "reaction",
    "reported",
    "same_secret",
    "secret_hash",
    "together",
    "values_of",
    "with_values",
]
