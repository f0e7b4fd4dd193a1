"""The state machines of planning; the diagrams in the docs are made from these tables."""

from handlers._states import Transitions

TASK = Transitions(
    noun="task",
    initial=("pending", "completed", "blocked"),
    actions={
        "claim": {"pending": ("in_progress",)},
        "complete": {"in_progress": ("completed",)},
        "block": {"pending": ("blocked",), "in_progress": ("blocked",)},
        "release": {"in_progress": ("pending",)},
        "expire": {"in_progress": ("pending", "blocked")},
        "retry": {"blocked": ("pending",)},
        "accept_late": {
            "pending": ("completed",),
            "in_progress": ("completed",),
            "blocked": ("completed",),
        },
    },
)
