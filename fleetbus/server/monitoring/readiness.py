"""Whether a process can take requests, and if not, why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bus.storage.outages import NOT_REACHED
from fleetbus.server import schema
from fleetbus.server.figures import Figures

if TYPE_CHECKING:
    from fleetbus.server.service import Service

FINE = "ok"


async def readiness(service: Service) -> dict[str, str]:
    """What was looked at, each "ok" or in words what is wrong."""
    figures = await service.figures.read()
    return {
        "nats": FINE if service.connected else "not connected",
        "subscriptions": _subscriptions(service),
        "database": _database(figures, service.database.trouble),
        "schema": _schema(figures),
        "drain": "draining" if service.draining else FINE,
    }


def _subscriptions(service: Service) -> str:
    """Each of them, and that what is sent to this process arrives; unless NATS is away at all."""
    if not service.wire.serving:
        return "not subscribed"
    if service.connected and not service.pulse.fresh:
        return "own messages do not come back"
    return FINE


def _database(figures: Figures | None, trouble: str | None) -> str:
    if figures is not None and figures.in_recovery:
        return "a standby or in recovery"
    if trouble is not None and trouble != NOT_REACHED:
        return trouble
    return "not reachable" if figures is None or trouble is not None else FINE


def _schema(figures: Figures | None) -> str:
    """A newer revision is fine: it came while this process served, as in every upgrade."""
    if figures is None:
        return "not known"
    if figures.revision in schema.older():
        return f"at {figures.revision}, needs {schema.head()}"
    return FINE
