"""Whether a process can take requests, and if not, why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleetbus import migrate
from fleetbus.monitoring.figures import Figures

if TYPE_CHECKING:
    from fleetbus.service import Service

FINE = "ok"


async def readiness(service: Service) -> dict[str, str]:
    """What was looked at, each "ok" or in words what is wrong."""
    figures = await service.figures.read()
    return {
        "nats": FINE if service.connected else "not connected",
        "subscriptions": _subscriptions(service),
        "database": _database(figures, available=service.database.available),
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


def _database(figures: Figures | None, *, available: bool) -> str:
    if figures is None or not available:
        return "not reachable"
    return "a standby or in recovery" if figures.in_recovery else FINE


def _schema(figures: Figures | None) -> str:
    """A newer revision is fine: it came while this process served, as in every upgrade."""
    if figures is None:
        return "not known"
    if figures.revision in migrate.older():
        return f"at {figures.revision}, needs {migrate.head()}"
    return FINE
