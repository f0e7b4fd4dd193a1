"""The tables and the picture that are made from what the benchmarks have measured."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from benchmarks import picture, tables
from benchmarks.goals import GOALS
from benchmarks.results import Results
from benchmarks.tables import BEGIN, END

ROOT = Path(__file__).parents[2]
PEERS = sorted((ROOT / "benchmarks" / "peers").glob("*.py"))


def row(contender: str, in_flight: int, throughput: float) -> dict[str, Any]:
    figures = ("p50_ms", "p99_ms", "handler_cpu_us", "postgres_cpu_us", "nats_cpu_us")
    return {
        "contender": contender,
        "workload": "complete",
        "in_flight": in_flight,
        "throughput": [throughput, throughput / 2, throughput * 2],
        **{name: [2.0, 1.0, 3.0] for name in figures},
        **{name: [2.0, 1.0, 3.0] for name in ("load_cpu_us", "round_trips", "peak_mib")},
    }


def results(*rows: dict[str, Any], **sections: dict[str, Any]) -> Results:
    comparison = {
        "command": "make bench",
        "machine": {
            "measured_at": "2026-02-03T04:05:06+00:00",
            "cpu": "Abacus",
            "cores": 2,
            "python": "3.11.9",
            "system": "Linux",
            "versions": {"asyncpg": "1"},
        },
        "servers": {"postgres": "18.1", "nats": "2.12.0"},
        "durable": True,
        "rounds": 3,
        "seconds": 1.5,
        "relay": "off",
        "postgres_settings": {},
        "skipped": {},
        "summary": list(rows),
    }
    return Results({"comparison": comparison, **sections})


MEASURED = results(
    row("fleetbus", 64, 3000.0), row("by_hand", 64, 1500.0), row("fleetbus", 256, 2000.0)
)


class TestTables:
    def test_a_ratio_is_that_of_the_medians_and_empty_for_who_was_not_measured(self) -> None:
        table = tables.ratios(MEASURED, 64)

        assert table.splitlines()[2] == "| complete a task | 3,000 (1,500–6,000) |  | 2.0× |  |  |"

    def test_it_says_where_it_comes_from(self) -> None:
        told = tables.short(MEASURED).splitlines()[-1]

        for fact in (
            *("make bench", "2026-02-03", "2 cores", "Python 3.11.9", "PostgreSQL 18.1"),
            *("NATS 2.12.0", "waits for the disk", "3 rounds"),
        ):
            assert fact in told

    def test_everything_is_on_the_page(self) -> None:
        wire = {"echo_us": 8.0, "fleetbus_us": 20.0, "difference_us": 12.0}
        section = {"get": wire, "complete": wire}
        origin = {"command": "wire", "machine": MEASURED.sections["comparison"]["machine"]}
        page = tables.full(Results(MEASURED.sections | {"wire": section | origin}))

        assert "### 256 in flight" in page
        assert "| get | 8.0 | 20.0 | 12.0 |" in page
        assert "### Soak" not in page

    def test_what_stands_around_the_marks_stays(self) -> None:
        page = f"before\n{BEGIN}\nold\n{END}\nafter"

        assert tables.insert(page, "new") == f"before\n{BEGIN}\nnew\n{END}\nafter"

    def test_a_page_without_marks_is_not_lost(self) -> None:
        with pytest.raises(ValueError, match="there is no"):
            tables.insert("a page", "new")

    @pytest.mark.parametrize("page", [tables.README, tables.PAGE], ids=lambda page: page.name)
    def test_the_pages_have_the_marks(self, page: Path) -> None:
        assert "new" in tables.insert(page.read_text(encoding="utf-8"), "new")


class TestGoals:
    def test_each_is_met_missed_or_not_measured(self) -> None:
        lines = tables.goals(MEASURED).splitlines()

        assert "| commands with event, 64 in flight, against by hand | ≥ 1.5× | 2× | yes |" in lines
        assert "| commands with event, 256 in flight against 64 | ≥ 1× | 0.667× | no |" in lines
        assert (
            "| commands with event, 64 in flight, against FastAPI + ORM | ≥ 10× | not measured |  |"
            in lines
        )
        assert len(lines) == len(GOALS) + 2

    def test_growth_and_memory_come_from_their_own_runs(self) -> None:
        growth = {"sizes": [{"workload": "claim", "p50_ms": p50} for p50 in (2.0, 2.5, 5.0)]}
        soak = {"processes": [{"settled_mib": 100.0, "last_mib": 110.0, "highest_mib": 120.0}]}
        told = tables.goals(results(growth=growth, soak=soak))

        assert "largest table against smallest | ≤ 1.5× | 2.5× | no |" in told
        assert "| memory of a process under steady load | ≤ 150 MiB | 120 MiB | yes |" in told
        assert "against once settled | ≤ 1.05× | 1.1× | no |" in told


class TestPicture:
    def test_the_longest_bar_is_the_fastest(self) -> None:
        root = ET.fromstring(picture.picture(MEASURED))

        widths = [float(bar.attrib["width"]) for bar in root.findall(".//{*}rect")]
        assert len(widths) == 2
        assert widths[0] == pytest.approx(2 * widths[1], rel=0.01)


@pytest.mark.parametrize("peer", PEERS, ids=lambda path: path.name)
def test_a_peer_is_short(peer: Path) -> None:
    assert len(peer.read_text(encoding="utf-8").splitlines()) < 80
