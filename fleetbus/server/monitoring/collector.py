"""The figures of a process as Prometheus metrics, made when they are asked for.

The names follow the conventions of Prometheus: base units, ``_total`` for what only grows. What
serves requests counts in its own integers and knows nothing of this.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, get_args

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from bus.kit import logs
from bus.running.stats import OperationStats, shed_by_budget
from bus.storage.database import PoolUse
from bus.storage.own.reconciliation import State, Verdict
from fleetbus.server.config import VERSION
from fleetbus.server.figures import Figures
from fleetbus.server.relay.metrics import RelayMetrics

if TYPE_CHECKING:
    from fleetbus.server.service import Service

CONTENT_TYPE = CONTENT_TYPE_LATEST

TIMES = [1 << power for power in range(17, 36)]
"""Bounds of the request times in nanoseconds, 0.13 ms to 34 s; on bounds of what is counted."""

SIZES = [1 << power for power in range(9)]
"""Bounds of the batch sizes."""

Operations = Mapping[str, OperationStats]


class Snapshot(NamedTuple):
    """The figures of a process at one moment; nothing in it changes any more."""

    ready: bool
    connected: bool
    operations: Operations
    pools: Mapping[str, PoolUse]
    relay: RelayMetrics | None
    figures: Figures | None
    unanswerable: Mapping[str, int]
    noted: Mapping[str, int]


def snapshot(service: Service, figures: Figures | None, *, ready: bool) -> Snapshot:
    """The figures of a running service now."""
    operations = service.dispatcher.stats.operations
    return Snapshot(
        ready,
        service.connected,
        {subject: stats.copy() for subject, stats in operations.items()},
        service.database.use(),
        replace(service.relay.metrics) if service.relay else None,
        figures,
        dict(service.replies.refused),
        dict(logs.counts),
    )


def collect(found: Snapshot) -> Iterator[Metric]:
    """Every metric; those of the database only if it gave its figures."""
    database = found.figures is not None
    yield _gauge("build_info", "1, with the version of fleetbus.", {VERSION: 1}, "version")
    yield _gauge("ready", "1 if /health/ready answers 200.", {"": found.ready})
    yield _gauge("nats_connected", "1 if connected to NATS.", {"": found.connected})
    yield _gauge("database_up", "1 if the database gave its figures.", {"": database})
    yield from _requests(found.operations)
    yield from _foreign(found)
    yield _durations(found.operations)
    yield _batches(found.operations)
    yield from _pools(found.pools)
    if found.relay is not None:
        yield from _relay(found.relay)
    if found.figures is not None:
        yield from _outbox(found.figures)
        yield from _jobs(found.figures)
        if found.figures.verdict is not None:
            yield from _comparison(found.figures.verdict)


def _requests(operations: Operations) -> Iterator[Metric]:
    requests = _counter("requests", "Answered requests by HTTP-like status.", "subject", "status")
    errors = _counter("request_errors", "Refused or failed requests by type.", "subject", "type")
    shed = _counter("requests_shed", "Requests refused with 429 without being read.", "subject")
    budgets = _counter("requests_shed_by_budget", "The same, by the limit reached.", "budget")
    in_flight = _family("requests_in_flight", "Requests in progress.", "subject")
    for subject, stats in operations.items():
        requests.add_metric([subject, "200"], stats.requests - stats.errors)
        for status, count in stats.errors_by_status.items():
            requests.add_metric([subject, str(status)], count)
        for kind, count in stats.errors_by_type.items():
            errors.add_metric([subject, kind], count)
        shed.add_metric([subject], stats.shed)
        in_flight.add_metric([subject], stats.in_flight)
    for budget, count in shed_by_budget(operations.values()).items():
        budgets.add_metric([budget], count)
    yield from (requests, errors, shed, budgets, in_flight)


def _foreign(found: Snapshot) -> Iterator[Metric]:
    """What others do that is left alone, or noted."""
    words = "Requests not executed: they named a reply subject that is not an inbox."
    unanswerable = _counter("requests_unanswerable", words, "subject")
    for subject, count in found.unanswerable.items():
        unanswerable.add_metric([subject], count)
    noted = _counter("noted", "Log lines caused by others, including those left out.", "kind")
    for kind, count in found.noted.items():
        noted.add_metric([kind], count)
    yield from (unanswerable, noted)


def _durations(operations: Operations) -> Metric:
    family = HistogramMetricFamily(
        "fleetbus_request_duration_seconds",
        "From taking a request to its answer; without requests that were shed.",
        labels=["subject"],
    )
    for subject, stats in operations.items():
        if stats.times.count:
            counts = [*stats.times.below(TIMES), stats.times.count]
            bounds = [*(str(bound / 1e9) for bound in TIMES), "+Inf"]
            family.add_metric([subject], list(zip(bounds, counts, strict=True)), _total(stats))
    return family


def _total(stats: OperationStats) -> float:
    return stats.times.total / 1e9


def _batches(operations: Operations) -> Metric:
    family = HistogramMetricFamily(
        "fleetbus_batch_size_requests", "Requests that shared a batch.", labels=["subject"]
    )
    for subject, stats in operations.items():
        if stats.batches:
            family.add_metric([subject], list(_sizes(stats.batches)), _weight(stats.batches))
    return family


def _sizes(batches: Counter[int]) -> Iterator[tuple[str, float]]:
    for bound in SIZES:
        yield str(float(bound)), sum(count for size, count in batches.items() if size <= bound)
    yield "+Inf", batches.total()


def _weight(batches: Counter[int]) -> int:
    return sum(size * count for size, count in batches.items())


def _pools(pools: Mapping[str, PoolUse]) -> Iterator[Metric]:
    sizes, used, waiting = ({name: use[place] for name, use in pools.items()} for place in range(3))
    yield _gauge("pool_size_connections", "Connections the pool may hold.", sizes, "pool")
    yield _gauge("pool_used_connections", "Connections in use.", used, "pool")
    yield _gauge(
        "pool_waiting_transactions", "Transactions waiting for a connection.", waiting, "pool"
    )


def _relay(metrics: RelayMetrics) -> Iterator[Metric]:
    yield _gauge("relay_leader", "1 in the process that publishes.", {"": metrics.active})
    counts = {
        "relay_takeovers": ("How often this process became the leader.", metrics.takeovers),
        "relay_published_events": ("Events published.", metrics.published),
        "relay_repaired_events": ("Lost events published again.", metrics.repaired),
        "relay_shortened_events": ("Events published in a short form.", metrics.shortened),
        "foreign_messages": ("Foreign messages removed from the stream.", metrics.foreign),
        "relay_publish_errors": ("Attempts to publish that failed.", metrics.publish_errors),
        "relay_interruptions": ("Interruptions of the relay.", metrics.errors),
    }
    for name, (words, count) in counts.items():
        family = _counter(name, words)
        family.add_metric([], count)
        yield family


def _outbox(figures: Figures) -> Iterator[Metric]:
    found = figures.outbox
    oldest = found.oldest.total_seconds() if found.oldest else 0.0
    gauges: dict[str, tuple[str, float]] = {
        "backlog_events": ("Events that wait to be published, about.", found.waiting),
        "oldest_unpublished_seconds": ("Age of the oldest of them; 0 if none waits.", oldest),
        "last_position": ("The position of the last committed event.", found.position),
        "published_position": ("All events up to it are published, except holes.", found.cursor),
        "hole_positions": ("Positions before it whose owners have not ended.", found.holes),
    }
    for name, (words, value) in gauges.items():
        yield _gauge(f"outbox_{name}", words, {"": value})


def _comparison(verdict: Verdict) -> Iterator[Metric]:
    at = verdict.checked_at.timestamp()
    states = {state: state == verdict.state for state in get_args(State)}
    gauges: dict[str, tuple[str, float]] = {
        "timestamp_seconds": ("When stream and outbox were compared last.", at),
        "missing_events": ("Events that the stream lacked then.", verdict.missing),
        "repaired_events": ("How many of them were published again.", verdict.repaired),
    }
    yield _gauge("comparison_state", "1 for its outcome.", states, "state")
    for name, (words, value) in gauges.items():
        yield _gauge(f"comparison_{name}", words, {"": value})


def _jobs(figures: Figures) -> Iterator[Metric]:
    ran = {name: run for name, run in figures.jobs.items() if run.at is not None}
    times = {name: run.at.timestamp() for name, run in ran.items() if run.at is not None}
    took = {name: (run.duration_ms or 0) / 1000 for name, run in ran.items()}
    failed = {name: run.error is not None for name, run in ran.items()}
    yield _gauge("job_last_run_timestamp_seconds", "When a job ran last.", times, "job")
    yield _gauge("job_last_duration_seconds", "How long its last run took.", took, "job")
    yield _gauge("job_failed", "1 if its last run failed.", failed, "job")
    handled = _counter("job_handled", "Entities that its runs handled.", "job")
    for name, run in ran.items():
        handled.add_metric([name], run.handled)
    yield handled


def _gauge(name: str, words: str, values: Mapping[str, float], *label: str) -> Metric:
    family = _family(name, words, *label)
    for value, number in values.items():
        family.add_metric([value] if label else [], float(number))
    return family


def _family(name: str, words: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"fleetbus_{name}", words, labels=labels)


def _counter(name: str, words: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"fleetbus_{name}", words, labels=labels)


class Exposition:
    """The text that Prometheus reads: metrics of the process as the system sees it, and ours."""

    def __init__(self) -> None:
        self._system = ProcessCollector(registry=CollectorRegistry())

    def text(self, found: Snapshot | None) -> bytes:
        """What is in a snapshot; without one, what the system knows."""
        ours = collect(found) if found else ()
        return generate_latest(_Collected([*self._system.collect(), *ours]))


class _Collected(Collector):
    """Metrics that were collected already."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        return self._metrics
