"""The tables of docs/reliability.md are made from results, and from nothing else."""

from pathlib import Path
from typing import Any

from tests.faults.checker import RULES, Violation
from tests.faults.nemeses import NEMESES
from tests.faults.report import BEGIN, END, PAGE, insert, tables
from tests.faults.rounds import Result


def results(*rounds: Result) -> dict[str, Any]:
    return {
        "command": "make faults FAULTS=3 SEED=4 ROUNDS=2",
        "date": "2026-01-02",
        "version": "1.2.3",
        "rounds": [one.as_json() for one in rounds],
    }


def a_round(seed: int, *struck: str, violations: tuple[Violation, ...] = ()) -> Result:
    return Result(
        seed, len(struck), 1, [], list(struck), [], list(violations), 100, 90, 1.5, 30.0, ""
    )


class TestTables:
    def test_tell_how_often_each_fault_struck(self) -> None:
        text = tables(results(a_round(1, "nats_killed", "client_cut"), a_round(2, "nats_killed")))
        assert f"| {NEMESES['nats_killed'].what} | 2 |" in text
        assert f"| {NEMESES['client_cut'].what} | 1 |" in text
        assert f"| {NEMESES['postgres_killed'].what} | never |" in text
        assert "| faults | 3 |" in text
        assert text.count("| none |") == len(RULES)

    def test_tell_what_was_found_and_what_repeats_it(self) -> None:
        found = Violation("ghost", "task.created at sequence 7 is not in the outbox")
        text = tables(results(a_round(1, "nats_killed"), a_round(2, "x", violations=(found,))))
        assert "| violations | 1 |" in text
        assert f"| `make faults FAULTS=1 SEED=2 ROUNDS=1` | {found.text} |" in text
        assert text.count("| none |") == len(RULES) - 1

    def test_a_round_of_some_faults_is_repeated_with_these(self) -> None:
        made = Result(1, 2, 1, ["nats_killed", "client_cut"])
        assert made.command.endswith("ROUNDS=1 ARGS='--only nats_killed client_cut'")


class TestPage:
    def test_has_its_place_for_them(self) -> None:
        page = Path(PAGE).read_text(encoding="utf-8")
        once = insert(page, "| a |")
        assert f"{BEGIN}\n| a |\n{END}" in once
        assert insert(insert(page, "| b |"), "| a |") == once
