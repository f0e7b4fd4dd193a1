"""The state machines of planning; the diagrams in the docs are made from these tables."""

from bus.handling import Transitions

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
    more="""
A task is **ready**, and so can be claimed, when all of this holds:

- it is pending;
- every task that it depends on is completed, and so is every task that a task above it (its parent,
  the parent of that, …) depends on;
- no task above it is blocked; one that is in progress or completed holds nothing back;
- the phase that it is in, if any, is in progress. It is in its own phase, or else in that of the
  nearest task above it that has one;
- its initiative, if it has one, is active: not waiting for its review, completed or archived.

When an existing task becomes ready, `task.ready` is emitted once, in the same transaction. A task
becomes ready when a dependency of it or of a task above it is completed, deleted or removed; when
it is moved; when its phase is started or unblocked, or changes to it are requested; when its
initiative is unarchived, or changes to it are requested; when a blocked task above it is tried
again or completed; when it is released or retried, its lease runs out, or its agent crashes. A task
that is ready as soon as it is created has only `task.created`. If something above a task holds it
back when it returns to the queue, it is pending, not ready.

If a task depended on a task that is deleted, alone or with its phase, it has the event
`task.dependency_removed`, and a version, for each dependency that it loses.

Claims, the filter `ready` of `db.tasks.list` and the counts of `db.tasks.queue` follow these rules.
""",
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
