"""What an operation has done since the process started: counts, times, quantiles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from datetime import UTC, datetime
from typing import Any

from bus.running.calls import Answer

_STEPS = 8
"""Buckets per doubling: a quantile is exact to about 9 %."""

_REMEMBERED = 16
"""Answers over which the size of the next one is guessed."""


class Histogram:
    """Durations in nanoseconds, in logarithmic buckets."""

    __slots__ = ("_buckets", "count", "total")

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self.count = 0
        self.total = 0

    def add(self, nanoseconds: int) -> None:
        """Count one duration."""
        self.count += 1
        self.total += nanoseconds
        self._buckets[_bucket(nanoseconds)] += 1

    def copy(self) -> Histogram:
        """The same durations, and none that come later."""
        same = copy(self)
        same._buckets = self._buckets.copy()  # noqa: SLF001  its own
        return same

    def below(self, bounds: Sequence[int]) -> Iterator[int]:
        """How many durations were shorter than each of these rising powers of two, in turn."""
        waiting = sorted(self._buckets, reverse=True)
        seen = 0
        for bound in bounds:
            while waiting and waiting[-1] < _bucket(bound):
                seen += self._buckets[waiting.pop()]
            yield seen

    def quantile(self, share: float) -> int:
        """The upper bound of the bucket below which this share of the durations lies."""
        wanted = share * self.count
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= wanted:
                return _bound(bucket)
        return 0


class OperationStats:
    """The figures of one operation."""

    __slots__ = (
        "batches",
        "errors",
        "errors_by_status",
        "errors_by_type",
        "expected",
        "in_flight",
        "last_error",
        "requests",
        "shed",
        "shed_by_budget",
        "times",
        "unanswerable",
    )

    def __init__(self) -> None:
        self.batches: Counter[int] = Counter()
        self.in_flight = 0
        self.expected = 0
        """Bytes of its answers lately, on average."""
        self.reset()

    def reset(self) -> None:
        """Start from nothing; what is in flight stays so."""
        self.requests = 0
        self.errors = 0
        self.shed = 0
        self.unanswerable = 0
        self.shed_by_budget: Counter[str] = Counter()
        self.last_error = ""
        self.errors_by_type: Counter[str] = Counter()
        self.errors_by_status: Counter[int] = Counter()
        self.batches.clear()
        self.times = Histogram()

    def copy(self) -> OperationStats:
        """The same figures, and nothing that comes later."""
        same = copy(self)
        same.batches = self.batches.copy()
        same.errors_by_type = self.errors_by_type.copy()
        same.errors_by_status = self.errors_by_status.copy()
        same.shed_by_budget = self.shed_by_budget.copy()
        same.times = self.times.copy()
        return same

    def count(self, answer: Answer, nanoseconds: int) -> None:
        """Count one answered request."""
        self.requests += 1
        self.times.add(nanoseconds)
        self.expected += (len(answer.body) - self.expected) // _REMEMBERED
        if answer.status != 200:
            self._count_error(answer)

    def count_shed(self, answer: Answer, budget: str = "requests") -> None:
        """Count one that was refused unseen: its time would make the others look fast."""
        self.requests += 1
        self.shed += 1
        self.shed_by_budget[budget] += 1
        self._count_error(answer)

    def _count_error(self, answer: Answer) -> None:
        self.errors += 1
        self.errors_by_type[answer.kind] += 1
        self.errors_by_status[answer.status] += 1
        self.last_error = f"{answer.status}:{answer.kind}"

    def data(self) -> dict[str, Any]:
        """What the services protocol leaves to the endpoint to tell."""
        return {
            "p50_ns": self.times.quantile(0.5),
            "p99_ns": self.times.quantile(0.99),
            "in_flight": self.in_flight,
            "shed": self.shed,
            "unanswerable": self.unanswerable,
            "shed_by_budget": dict(self.shed_by_budget),
            "errors_by_type": dict(self.errors_by_type),
            "batches": self.batches.total(),
            "largest_batch": max(self.batches, default=0),
        }


class Stats:
    """The figures of all operations of a process."""

    def __init__(self, subjects: list[str]) -> None:
        self.operations = {subject: OperationStats() for subject in subjects}
        self.started = datetime.now(UTC)
        self.in_flight = 0


def shed_by_budget(operations: Iterable[OperationStats]) -> Counter[str]:
    """How many requests of these operations were refused for which budget."""
    total: Counter[str] = Counter()
    for stats in operations:
        total.update(stats.shed_by_budget)
    return total


def _bucket(nanoseconds: int) -> int:
    """Which bucket: ``_STEPS`` equal parts of each power of two."""
    nanoseconds = max(nanoseconds, 1)
    power = nanoseconds.bit_length() - 1
    rest = nanoseconds - (1 << power)
    return power * _STEPS + (rest * _STEPS >> power)


def _bound(bucket: int) -> int:
    power, step = divmod(bucket, _STEPS)
    return (1 << power) + ((step + 1) << power) // _STEPS
