"""The Python client and the worker kit: ``from fleetbus.client import connect``.

A name is imported when it is asked for: the command line connects without loading a contract.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fleetbus.client.agent import WorkingAgent
    from fleetbus.client.calling import Answered, NoAnswer, UnknownRefusal
    from fleetbus.client.client import Bus, Client, connect
    from fleetbus.client.errors import AgentLost, CancelRequested, TaskLost
    from fleetbus.client.transaction import Planned, Transaction

__all__ = [
    "AgentLost",
    "Answered",
    "Bus",
    "CancelRequested",
    "Client",
    "NoAnswer",
    "Planned",
    "TaskLost",
    "Transaction",
    "UnknownRefusal",
    "WorkingAgent",
    "connect",
]

_PLACES = {
    "agent": ("WorkingAgent",),
    "calling": ("Answered", "NoAnswer", "UnknownRefusal"),
    "client": ("Bus", "Client", "connect"),
    "errors": ("AgentLost", "CancelRequested", "TaskLost"),
    "transaction": ("Planned", "Transaction"),
}


def __getattr__(name: str) -> Any:
    for place, names in _PLACES.items():
        if name in names:
            return getattr(importlib.import_module(f"fleetbus.client.{place}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
