"""What a process says of itself in ``$SRV.STATS``, beside the figures of its operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from bus.running.stats import shed_by_budget
from bus.storage.sealed import KeyRing
from fleetbus.server.figures import Figures
from fleetbus.server.relay.metrics import RelayMetrics

if TYPE_CHECKING:
    from bus.running.dispatcher import Dispatcher
    from bus.storage.database import Database
    from fleetbus.client.connection.answering import ReplyRule
    from fleetbus.server.figures import FiguresReader
    from fleetbus.server.relay.relay import Relay


class Serving(Protocol):
    """A process as far as its figures need it."""

    draining: bool
    database: Database
    dispatcher: Dispatcher
    figures: FiguresReader
    keys: KeyRing
    relay: Relay | None
    replies: ReplyRule


async def process_figures(service: Serving) -> dict[str, Any]:
    """Pools, relay, outbox, periodic work, keys; null where it is not known or not done here.

    Ages and durations are in seconds. Outbox and jobs are those of the database, the same from
    every process.
    """
    figures = await service.figures.read()
    stats = service.dispatcher.stats
    return {
        "draining": service.draining,
        "in_flight": stats.in_flight,
        "shed": sum(operation.shed for operation in stats.operations.values()),
        "unanswerable": service.replies.refused.total(),
        "shed_by_budget": dict(shed_by_budget(stats.operations.values())),
        "pools": {name: use._asdict() for name, use in service.database.use().items()},
        "relay": _relay(service.relay.metrics) if service.relay else None,
        "outbox": _outbox(figures) if figures else None,
        "jobs": _jobs(figures) if figures else None,
        "keys": _keys(service.keys, figures),
        "comparison": figures.verdict._asdict() if figures and figures.verdict else None,
    }


def _keys(ring: KeyRing, figures: Figures | None) -> dict[str, Any]:
    """The ids of this process's keys, what is wrong with them, and what each key has written."""
    return {
        "ids": list(ring.ids),
        "problem": ring.problem,
        "credentials": figures.credentials if figures else None,
    }


def _relay(metrics: RelayMetrics) -> dict[str, Any]:
    return {
        "leader": metrics.active,
        "takeovers": metrics.takeovers,
        "published": metrics.published,
        "repaired": metrics.repaired,
        "last_position": metrics.last_position,
        "publish_errors": metrics.publish_errors,
        "interruptions": metrics.errors,
        "last_error": metrics.last_error,
        "trouble": metrics.trouble,
        "foreign_messages": metrics.foreign,
        "shortened": metrics.shortened,
    }


def _outbox(figures: Figures) -> dict[str, Any]:
    found = figures.outbox
    return {
        "backlog": found.waiting,
        "oldest_unpublished": found.oldest.total_seconds() if found.oldest else 0.0,
        "published_position": found.cursor,
        "last_position": found.position,
        "holes": found.holes,
    }


def _jobs(figures: Figures) -> dict[str, Any]:
    return {
        name: {
            "last_run_at": run.at,
            "duration": None if run.duration_ms is None else run.duration_ms / 1000,
            "handled": run.handled,
            "error": run.error,
        }
        for name, run in figures.jobs.items()
    }
