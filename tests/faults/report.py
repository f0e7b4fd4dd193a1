"""What was done, how often, what was promised, what was found: as tables for docs/reliability.md.

python -m tests.faults.report    puts the results of the last run into the page
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.faults import losses
from tests.faults.checker import RULES
from tests.faults.nemeses import NEMESES

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "build" / "faults" / "results.json"
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- results -->", "<!-- end of results -->"

assert losses.__name__  # its nemeses are declared by the import


def tables(results: dict[str, Any]) -> str:
    """The results of a run in Markdown."""
    rounds: list[dict[str, Any]] = results["rounds"]
    parts = [_summary(results, rounds), _faults(rounds), _promises(rounds)]
    failed = [one for one in rounds if one["violations"]]
    if failed:
        parts.append(_failures(failed))
    return "\n\n".join(parts)


def _summary(results: dict[str, Any], rounds: Sequence[dict[str, Any]]) -> str:
    total = Counter[str]()
    for one in rounds:
        total.update(
            faults=len(one["struck"]),
            requests=one["requests"],
            events=one["events"],
            violations=len(one["violations"]),
        )
    rests = [one["rested"] for one in rounds if one["rested"] is not None]
    rows = [
        ("command", f"`{results['command']}`"),
        ("date", results["date"]),
        ("version", results["version"]),
        ("rounds", f"{len(rounds)} ({_nodes(rounds)})"),
        ("duration", f"{sum(one['seconds'] for one in rounds) / 60:.0f} min"),
        ("faults", f"{total['faults']:,}"),
        ("requests", f"{total['requests']:,}"),
        ("events", f"{total['events']:,}"),
        ("longest time from healing to rest", f"{max(rests, default=0):.1f} s"),
        ("violations", f"{total['violations']:,}"),
    ]
    return _table(("run", ""), rows)


def _nodes(rounds: Iterable[dict[str, Any]]) -> str:
    counts = Counter(one["nodes"] for one in rounds)
    return ", ".join(
        f"{count} with {nodes} NATS server{'s' if nodes > 1 else ''}"
        for nodes, count in sorted(counts.items())
    )


def _faults(rounds: Iterable[dict[str, Any]]) -> str:
    struck = Counter(name for one in rounds for name in one["struck"])
    rows = [
        (nemesis.what, str(struck[name]) if struck[name] else "never")
        for name, nemesis in NEMESES.items()
    ]
    return _table(("fault", "how often"), rows)


def _promises(rounds: Iterable[dict[str, Any]]) -> str:
    found = Counter(violation["rule"] for one in rounds for violation in one["violations"])
    rows = []
    for promise, rules in RULES.items():
        said = " ".join(str(rule.__doc__) for rule in rules)
        count = sum(found[rule.__name__] for rule in rules)
        rows.append((promise, said, str(count) if count else "none"))
    return _table(("promise", "what is checked", "violations"), rows)


def _failures(failed: Iterable[dict[str, Any]]) -> str:
    rows = [(f"`{one['command']}`", one["violations"][0]["text"]) for one in failed]
    return _table(("command that repeats it", "the first violation"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def insert(page: str, content: str) -> str:
    """The page with this between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{content}\n{END}{after}"


def main() -> int:
    if not RESULTS.exists():
        sys.stderr.write("there are no results: run make faults first\n")
        return 1
    results = json.loads(RESULTS.read_text())
    PAGE.write_text(insert(PAGE.read_text(encoding="utf-8"), tables(results)), encoding="utf-8")
    sys.stdout.write(f"{PAGE.relative_to(ROOT)} has the results of {results['command']}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
