"""What was measured, as it lies in the file of results."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.contenders import ROOT

FILE = ROOT / "benchmarks" / "results.json"


@dataclass(frozen=True)
class Results:
    """The sections of the file, one for each kind of benchmark that was run."""

    sections: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, path: Path = FILE) -> Results:
        """Those of the last runs; none where there is no file."""
        return cls(json.loads(path.read_text()) if path.exists() else {})

    @property
    def comparison(self) -> dict[str, Any] | None:
        """The comparison with the other contenders."""
        return self.sections.get("comparison")

    def figure(self, name: str, contender: str, workload: str, in_flight: int) -> float | None:
        """The median of a figure of the comparison; None where it was not measured."""
        spread = self.spread(name, contender, workload, in_flight)
        return spread[0] if spread else None

    def spread(
        self, name: str, contender: str, workload: str, in_flight: int
    ) -> tuple[float, float, float] | None:
        """Median, lowest and highest of the rounds."""
        for row in (self.comparison or {}).get("summary", []):
            if (row["contender"], row["workload"], row["in_flight"]) == (
                contender,
                workload,
                in_flight,
            ):
                median, low, high = row[name]
                return median, low, high
        return None

    def ratio(
        self, name: str, contender: str, other: str, workload: str, in_flight: int
    ) -> float | None:
        """How many times the figure of another contender."""
        own = self.figure(name, contender, workload, in_flight)
        theirs = self.figure(name, other, workload, in_flight)
        return own / theirs if own is not None and theirs else None

    def measured(self, what: str) -> list[Any]:
        """What was measured of that: workloads, numbers in flight or contenders, in their order."""
        rows = (self.comparison or {}).get("summary", [])
        return list(dict.fromkeys(row[what] for row in rows))
