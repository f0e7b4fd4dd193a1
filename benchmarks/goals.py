"""The goals of the benchmarks, and whether they are met."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.contenders import TITLES
from benchmarks.results import Results

OWN = "fleetbus"

SHARE_OF_BY_HAND = 60 / 80
"""60 µs of CPU where what is written by hand costs about 80; on another machine, so much of it."""


@dataclass(frozen=True)
class Goal:
    """A figure and the limit that it is held to."""

    what: str
    limit: float
    unit: str
    value: Callable[[Results], float | None]
    at_least: bool = False

    @property
    def wanted(self) -> str:
        """The limit in words."""
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}{self.unit}"

    def met(self, value: float) -> bool:
        """Whether a value is within the limit."""
        return value >= self.limit if self.at_least else value <= self.limit


def _faster(workload: str, other: str, limit: float, title: str) -> Goal:
    def value(results: Results) -> float | None:
        return results.ratio("throughput", OWN, other, workload, 64)

    return Goal(f"{title}, 64 in flight, against {TITLES[other]}", limit, "×", value, at_least=True)


def _more_at_256(results: Results) -> float | None:
    few, many = (results.figure("throughput", OWN, "complete", n) for n in (64, 256))
    return many / few if few and many else None


def _alone(results: Results) -> float | None:
    return results.ratio("p50_ms", OWN, "by_hand_promises", "complete", 1)


def _cpu(results: Results) -> float | None:
    return results.ratio("handler_cpu_us", OWN, "by_hand", "complete", 64)


def _round_trips(results: Results) -> float | None:
    return results.figure("round_trips", OWN, "complete", 64)


def _wire(results: Results) -> float | None:
    wire: dict[str, Any] = results.sections.get("wire", {})
    found = [wire[name]["difference_us"] for name in ("get", "complete") if name in wire]
    return max(found) if found else None


def _growth(workload: str) -> Callable[[Results], float | None]:
    def value(results: Results) -> float | None:
        sizes = results.sections.get("growth", {}).get("sizes", [])
        p50 = [one["p50_ms"] for one in sizes if one["workload"] == workload]
        return p50[-1] / p50[0] if len(p50) > 1 and p50[0] else None

    return value


def _soaked(name: str) -> Callable[[Results], float | None]:
    def value(results: Results) -> float | None:
        processes = results.sections.get("soak", {}).get("processes", [])
        return max((float(one[name]) for one in processes), default=None)

    return value


def _grown_in_soak(results: Results) -> float | None:
    processes = results.sections.get("soak", {}).get("processes", [])
    return max((one["last_mib"] / one["settled_mib"] for one in processes), default=None)


GOALS = (
    _faster("complete", "tutorial", 10, "commands with event"),
    _faster("complete", "by_hand", 1.5, "commands with event"),
    _faster("complete", "by_hand_promises", 2.5, "commands with event"),
    _faster("complete", "http", 10, "commands with event"),
    Goal("commands with event, 256 in flight against 64", 1, "×", _more_at_256, at_least=True),
    _faster("get", "by_hand", 1.5, "reads by id"),
    _faster("append", "by_hand", 3, "log chunks"),
    Goal("p50 of a command alone, against by hand + promises", 1.25, "×", _alone),
    Goal("handler CPU of a command, 64 in flight, against by hand", SHARE_OF_BY_HAND, "×", _cpu),
    Goal("round trips of a command, 64 in flight", 0.15, "", _round_trips),
    Goal("CPU of a request between nats-py and the database", 30, " µs", _wire),
    Goal("p50 of a claim, largest table against smallest", 1.5, "×", _growth("claim")),
    Goal("p50 of a command, largest table against smallest", 1.5, "×", _growth("complete")),
    Goal("memory of a process under steady load", 150, " MiB", _soaked("highest_mib")),
    Goal("memory at the end of the steady load, against once settled", 1.05, "×", _grown_in_soak),
)
