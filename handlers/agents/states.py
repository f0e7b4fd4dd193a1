"""The state machine of agents; the diagram in the docs is made from this table."""

from bus.handling import Transitions

AGENT = Transitions(
    noun="agent",
    initial=("idle",),
    actions={
        "begin": {"idle": ("running",)},
        "ask": {"running": ("waiting_for_input",)},
        "resume": {
            "idle": ("running",),
            "waiting_for_input": ("running",),
            "stopped": ("running",),
            "crashed": ("running",),
        },
        "finish": {"running": ("idle",)},
        "stop": {
            "idle": ("stopped",),
            "running": ("stopped",),
            "waiting_for_input": ("stopped",),
        },
        "crash": {
            "idle": ("crashed",),
            "running": ("crashed",),
            "waiting_for_input": ("crashed",),
        },
        "heartbeat": {
            "idle": ("idle",),
            "running": ("running",),
            "waiting_for_input": ("waiting_for_input",),
        },
        "request_cancel": {
            "idle": ("idle",),
            "running": ("running",),
            "waiting_for_input": ("waiting_for_input",),
        },
        "claim": {
            "idle": ("running",),
            "running": ("running",),
            "waiting_for_input": ("waiting_for_input",),
        },
        "append": {
            "idle": ("idle",),
            "running": ("running",),
            "waiting_for_input": ("waiting_for_input",),
        },
        "switch_account": {
            "idle": ("idle",),
            "running": ("running",),
            "waiting_for_input": ("waiting_for_input",),
        },
        "dismiss": {
            "idle": ("idle",),
            "stopped": ("stopped",),
            "crashed": ("crashed",),
        },
        "delete": {"idle": (), "stopped": (), "crashed": ()},
    },
)
"""``begin`` follows from a task: one that is claimed in its name, or that it registers with."""
