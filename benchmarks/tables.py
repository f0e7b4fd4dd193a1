"""What was measured, as tables for README.md and docs/benchmarks.md.

python -m benchmarks.tables    puts the results of the last runs into both, and draws the picture
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from benchmarks import picture
from benchmarks.contenders import COMPARED, ROOT, TITLES
from benchmarks.goals import GOALS, OWN
from benchmarks.results import Results
from benchmarks.workloads import WORKLOADS

README = ROOT / "README.md"
PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- benchmarks -->", "<!-- end of benchmarks -->"

AT = 64
"""Requests in flight of the ratios that the README shows."""


def short(results: Results) -> str:
    """The ratios, and where they come from."""
    return "\n\n".join([ratios(results, AT), _origin(results)])


def full(results: Results) -> str:
    """Everything that was measured."""
    parts = [
        f"![Operations per second]({picture.FILE.name})",
        _run(results),
        "### Goals",
        goals(results),
    ]
    for in_flight in results.measured("in_flight"):
        parts += [f"### {in_flight} in flight", ratios(results, in_flight)]
        parts += [_costs(results, in_flight)]
    parts += _others(results)
    return "\n\n".join(parts)


def ratios(results: Results, in_flight: int) -> str:
    """How many times the throughput of each of the others fleetbus reaches."""
    rows = []
    for name in results.measured("workload"):
        own = results.spread("throughput", OWN, name, in_flight)
        if own is None:
            continue
        others = (results.ratio("throughput", OWN, other, name, in_flight) for other in COMPARED)
        rows.append((WORKLOADS[name].title, _rate(own), *(_times(ratio) for ratio in others)))
    against = (f"against {TITLES[other]}" for other in COMPARED)
    return _table((f"{in_flight} in flight", "per second", *against), rows)


def goals(results: Results) -> str:
    """The goals, and which of them were met."""
    rows = []
    for goal in GOALS:
        value = goal.value(results)
        if value is None:
            rows.append((goal.what, goal.wanted, "not measured", ""))
            continue
        rows.append(
            (goal.what, goal.wanted, f"{value:.3g}{goal.unit}", "yes" if goal.met(value) else "no")
        )
    return _table(("figure", "goal", "measured", "met"), rows)


def _origin(results: Results) -> str:
    run = results.comparison or {}
    return (
        f"Made by `{run['command']}` on {_date(run)}: {_place(run)}, {_disk(run)}; the median of "
        f"{_count(run['rounds'], 'round')}."
    )


def _run(results: Results) -> str:
    run = results.comparison or {}
    versions: dict[str, str] = run["machine"]["versions"]
    rows = [
        ("command", f"`{run['command']}`"),
        ("date", _date(run)),
        ("machine", _place(run)),
        ("system", run["machine"]["system"]),
        ("durability", _disk(run)),
        ("rounds", f"{run['rounds']}, of {run['seconds']:g} s for each measurement"),
        ("relay", run["relay"]),
        ("Postgres settings", _listed(run["postgres_settings"])),
        ("libraries", _listed(versions)),
        ("left out", _listed(run["skipped"]) or "nothing"),
    ]
    return _table(("run", ""), rows)


def _costs(results: Results, in_flight: int) -> str:
    rows = []
    for workload in results.measured("workload"):
        for name in TITLES:
            own = results.spread("throughput", name, workload, in_flight)
            if own is None:
                continue
            figures = (
                results.figure(figure, name, workload, in_flight) or 0.0
                for figure in ("p50_ms", "p99_ms", "handler_cpu_us", "postgres_cpu_us",
                               "nats_cpu_us", "load_cpu_us", "round_trips", "peak_mib")
            )  # fmt: skip
            digits = (2, 2, 0, 0, 0, 0, 2, 0)
            shown = (f"{v:,.{d}f}" if v else "" for v, d in zip(figures, digits, strict=True))
            rows.append((workload, TITLES[name], _rate(own), *shown))
    return _table(
        ("", "", "per second", "p50 ms", "p99 ms", "handler µs", "Postgres µs", "NATS µs",
         "load µs", "round trips", "MiB"),
        rows,
    )  # fmt: skip


def _others(results: Results) -> Iterator[str]:
    for name, describe in (
        ("growth", _growth),
        ("latency", _latency),
        ("relay", _relay),
        ("wire", _wire),
        ("soak", _soak),
    ):
        if (section := results.sections.get(name)) is not None:
            yield f"### {name.capitalize()}"
            yield from describe(section)
            yield f"`{section['command']}`, {_date(section)}, {_place(section)}."


def _growth(section: dict[str, Any]) -> Iterator[str]:
    sizes, counts = section["sizes"], section["processes"]
    yield _pivot("p50 ms, tasks in the table", sizes, "tasks", "p50_ms", 2)
    yield _pivot("per second, 64 in flight, processes", counts, "processes", "throughput", 0)


def _pivot(
    title: str, measured: Sequence[dict[str, Any]], column: str, figure: str, digits: int
) -> str:
    columns = list(dict.fromkeys(one[column] for one in measured))
    names = list(dict.fromkeys(one["workload"] for one in measured))
    found = {(one["workload"], one[column]): one[figure] for one in measured}
    rows = ((name, *(f"{found[name, at]:,.{digits}f}" for at in columns)) for name in names)
    return _table((title, *(f"{at:,}" for at in columns)), rows)


def _latency(section: dict[str, Any]) -> Iterator[str]:
    yield (
        f"From COMMIT to the event at a subscriber, at {section['per_second']:,.0f} commands per "
        f"second (half of what is possible with the relay in the same process): p50 "
        f"{section['recorded_to_event_p50_ms']:.1f} ms, p99 "
        f"{section['recorded_to_event_p99_ms']:.1f} ms, of {section['events']:,} events."
    )


def _relay(section: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{section['per_second']:,.0f} events per second, out of a backlog of "
        f"{section['events']:,} in transactions of {section['events_per_transaction']}."
    )


def _wire(section: dict[str, Any]) -> Iterator[str]:
    keys = ("echo_us", "fleetbus_us", "difference_us")
    rows = ((name, *(f"{section[name][key]:.1f}" for key in keys)) for name in ("get", "complete"))
    head = ("CPU of a request, µs", "nats-py echo", "fleetbus without a database", "difference")
    yield _table(head, rows)


def _soak(section: dict[str, Any]) -> Iterator[str]:
    head = (f"MiB, {section['minutes']:g} minutes", "once settled", "at the end", "at most")
    keys = ("settled_mib", "last_mib", "highest_mib")
    rows = (
        (f"process {number}", *(f"{one[key]:.0f}" for key in keys))
        for number, one in enumerate(section["processes"], 1)
    )
    yield f"{section['per_second']:,.0f} requests per second, relay and sweeper included."
    yield _table(head, rows)


def _place(run: dict[str, Any]) -> str:
    machine = run["machine"]
    parts = [f"{_count(machine['cores'], 'core')} ({machine['cpu']})"]
    parts += [f"Python {machine['python']}"]
    parts += [f"{_NAMES[name]} {version}" for name, version in run.get("servers", {}).items()]
    return ", ".join(parts)


_NAMES = {"postgres": "PostgreSQL", "nats": "NATS"}


def _disk(run: dict[str, Any]) -> str:
    return "every commit waits for the disk" if run["durable"] else "no commit waits for the disk"


def _date(run: dict[str, Any]) -> str:
    return str(run["machine"]["measured_at"])[:10]


def _rate(spread: tuple[float, float, float]) -> str:
    median, low, high = spread
    return f"{median:,.0f} ({low:,.0f}–{high:,.0f})"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.1f}×"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _listed(values: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def insert(page: str, content: str) -> str:
    """The page with this between its marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"there is no {BEGIN} … {END} to put it between")
    return f"{before}{BEGIN}\n{content}\n{END}{after}"


def main() -> int:
    results = Results.read()
    if results.comparison is None:
        sys.stderr.write("there are no results: run make bench first\n")
        return 1
    for page, content in ((README, short(results)), (PAGE, full(results))):
        page.write_text(insert(page.read_text(encoding="utf-8"), content), encoding="utf-8")
    picture.draw(results)
    sys.stdout.write("README.md and docs/benchmarks.md have the results of the last runs\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
