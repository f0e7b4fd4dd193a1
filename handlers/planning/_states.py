"""The state machines of planning; the diagrams in the docs are made from these tables."""

from handlers._states import Transitions

TASK = Transitions(
    noun="task",
    initial=("pending", "completed", "blocked"),
    actions={
        "claim": {"pending": ("in_progress",)},
        "complete": {"in_progress": ("completed",)},
        "block": {"pending": ("blocked",), "in_progress": ("blocked",)},
        "renew": {"in_progress": ("in_progress",)},
        "release": {"in_progress": ("pending",)},
        "expire": {"in_progress": ("pending",)},
        "lose_agent": {"in_progress": ("pending", "blocked")},
        "retry": {"blocked": ("pending",)},
        "accept_late": {
            "pending": ("completed",),
            "in_progress": ("completed",),
            "blocked": ("completed",),
            "completed": ("completed",),
        },
        "add_dependency": {"pending": ("pending",), "blocked": ("blocked",)},
    },
)

PHASE = Transitions(
    noun="phase",
    initial=("pending", "approved", "in_progress", "completed", "blocked"),
    actions={
        "approve": {"pending": ("approved",)},
        "start": {"approved": ("in_progress",)},
        "finish": {"in_progress": ("pending_review", "completed")},
        "complete": {"in_progress": ("completed",)},
        "approve_review": {"pending_review": ("completed",)},
        "request_changes": {"pending_review": ("in_progress",)},
        "take_up": {"pending_review": ("in_progress",), "completed": ("in_progress",)},
        "block": {
            "pending": ("blocked",),
            "approved": ("blocked",),
            "in_progress": ("blocked",),
            "pending_review": ("blocked",),
        },
        "unblock": {"blocked": ("pending", "approved", "in_progress", "pending_review")},
        "finalize": {
            "pending": ("in_progress",),
            "approved": ("in_progress",),
            "in_progress": ("in_progress",),
            "pending_review": ("in_progress",),
            "completed": ("in_progress",),
            "blocked": ("in_progress",),
        },
    },
)
"""``finish`` follows from its last task, ``take_up`` from one that is added, ``finalize`` from
changes that an initiative needs."""

INITIATIVE = Transitions(
    noun="initiative",
    initial=("active",),
    actions={
        "finish": {"active": ("pending_review",)},
        "approve": {"pending_review": ("completed",)},
        "request_changes": {"pending_review": ("active",)},
        "take_up": {"pending_review": ("active",), "completed": ("active",)},
        "archive": {
            "active": ("archived",),
            "pending_review": ("archived",),
            "completed": ("archived",),
        },
        "unarchive": {"archived": ("active", "pending_review", "completed")},
    },
)
"""``finish`` follows from its last phase or task, ``take_up`` from one that is added."""
