"""The state machines of health; the diagrams in the docs are made from these tables."""

from bus.handling import Transitions

TEST_RUN = Transitions(
    noun="test_run",
    initial=("running", "success", "failure", "skipped", "timeout"),
    actions={
        "finish": {"running": ("success", "failure", "skipped", "timeout")},
        "expire": {"running": ("timeout",)},
    },
)

CHECK = Transitions(
    noun="check",
    initial=("running",),
    actions={
        "close": {"running": ("completed", "failed", "timeout")},
        "cancel": {"running": ("cancelled",)},
    },
)
"""``close`` follows from the last worker that reported or ran out of time."""

WORKER_CHECK = Transitions(
    noun="worker_check",
    initial=("pending",),
    actions={
        "report": {"pending": ("completed", "failed"), "running": ("completed", "failed")},
        "expire": {"pending": ("timeout",), "running": ("timeout",)},
        "cancel": {"pending": ("cancelled",), "running": ("cancelled",)},
    },
)
