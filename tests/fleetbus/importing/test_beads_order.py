"""What waits for what in Beads waits here, and what holds work back there blocks it here."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from fleetbus.importing.beads import read_beads
from fleetbus.importing.plan import Dependency, Plan
from tests.fleetbus.importing._execution import assert_consistent
from tests.fleetbus.importing.test_beads import epic, issue, outcomes, read, task

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def waits_for(ref: str, other: str, gate: str | None = None, **fields: Any) -> dict[str, object]:
    """An issue that waits for the children of another one."""
    edge = {"issue_id": ref, "depends_on_id": other, "type": "waits-for"}
    if gate is not None:
        edge["metadata"] = json.dumps({"gate": gate})
    return {"id": ref, "title": ref.upper(), "dependencies": [edge], **fields}


def pairs(plan: Plan) -> set[tuple[str, str]]:
    return {(edge.ref, edge.depends_on) for edge in plan.dependencies}


def state(plan: Plan, ref: str) -> tuple[str, str | None]:
    found = task(plan, ref)
    return found.status, found.blocked_reason


class TestWaitsFor:
    @pytest.mark.parametrize("gate", [None, "all-children", "nonsense"])
    def test_all_children(self, gate: str | None) -> None:
        plan = read(
            issue("a"), issue("a1", parent="a"), issue("a2", parent="a"), waits_for("b", "a", gate)
        )
        assert pairs(plan) == {("b", "a1"), ("b", "a2")}
        assert plan.notes == ()

    def test_only_direct_children(self) -> None:
        plan = read(
            issue("a"), issue("a1", parent="a"), issue("a11", parent="a1"), waits_for("b", "a")
        )
        assert pairs(plan) == {("b", "a1")}

    def test_any_child_is_kept_as_all_of_them_and_named(self) -> None:
        plan = read(
            issue("a"),
            issue("a1", parent="a"),
            issue("a2", parent="a"),
            waits_for("b", "a", "any-children"),
        )
        assert pairs(plan) == {("b", "a1"), ("b", "a2")}
        assert [note.text for note in plan.notes] == [
            "waits for any child of a in Beads, here for all of them"
        ]

    def test_any_child_where_one_is_closed(self) -> None:
        plan = read(
            issue("a"),
            issue("a1", parent="a", status="closed"),
            issue("a2", parent="a"),
            waits_for("b", "a", "any-children"),
        )
        assert pairs(plan) == set()
        assert plan.left_out[0].detail == "nothing waits here any longer: a1 is over"

    def test_without_children_there_is_nothing_to_wait_for(self) -> None:
        plan = read(issue("a"), waits_for("b", "a"), waits_for("c", "z"))
        assert [edge.detail for edge in plan.left_out] == [
            "a has no children to wait for",
            "z is not in the plan",
        ]

    def test_the_children_of_what_is_no_work(self) -> None:
        plan = read(issue("a", issue_type="molecule"), issue("a1", parent="a"), waits_for("b", "a"))
        assert pairs(plan) == {("b", "a1")}

    def test_a_child_that_is_no_work_and_open_holds_it_back(self) -> None:
        plan = read(issue("a"), issue("a1", parent="a", ephemeral=True), waits_for("b", "a"))
        assert state(plan, "b") == ("blocked", "Waits in Beads for a1, which is not imported")

    def test_a_child_does_not_wait_for_itself(self) -> None:
        child = waits_for("a1", "a")
        child["dependencies"].append(  # type: ignore[attr-defined]  # it is a list
            {"issue_id": "a1", "depends_on_id": "a", "type": "parent-child"}
        )
        plan = read(issue("a"), child, issue("a2", parent="a"))
        assert pairs(plan) == {("a1", "a2")}
        assert "self" in outcomes(plan)

    def test_too_many_children_hold_it_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("fleetbus.importing._beads_order.MAX_EXPANDED", 1)
        plan = read(
            issue("a"), issue("a1", parent="a"), issue("a2", parent="a"), waits_for("b", "a")
        )
        assert [edge.outcome for edge in plan.left_out] == ["too_many"]
        assert task(plan, "b").status == "blocked"

    @pytest.mark.parametrize("metadata", ["{", "[" * 99_999, 7, {"gate": "any-children"}, None])
    def test_metadata_of_all_kinds(self, metadata: object) -> None:
        waiting = waits_for("b", "a")
        waiting["dependencies"][0]["metadata"] = metadata  # type: ignore[index]  # it is a list
        plan = read(issue("a"), issue("a1", parent="a"), waiting)
        assert pairs(plan) == {("b", "a1")}


class TestConditionalBlocks:
    def test_it_waits_and_a_person_decides(self) -> None:
        plan = read(issue("a"), issue("b", "conditional-blocks:a"))
        assert pairs(plan) == {("b", "a")}
        assert state(plan, "b") == ("blocked", "Runs in Beads only if a fails")

    @pytest.mark.parametrize("reason", ["Tests FAILED", "won't fix", "Timeout after 1h"])
    def test_after_a_failure_it_may_begin(self, reason: str) -> None:
        plan = read(
            issue("a", status="closed", close_reason=reason), issue("b", "conditional-blocks:a")
        )
        assert state(plan, "b") == ("pending", None)

    @pytest.mark.parametrize("reason", [None, "Done", "All green"])
    def test_after_a_success_it_does_not(self, reason: str | None) -> None:
        plan = read(
            issue("a", status="closed", close_reason=reason), issue("b", "conditional-blocks:a")
        )
        assert state(plan, "b") == (
            "blocked",
            "Runs in Beads only if a fails; it was closed, and not for a failure",
        )

    def test_what_is_done_stays_done(self) -> None:
        plan = read(issue("a"), issue("b", "conditional-blocks:a", status="closed"))
        assert task(plan, "b").status == "completed"


class TestConditions:
    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            (
                {"issue_type": "gate", "await_type": "gh:run", "await_id": "4711"},
                "Waits in Beads for gh:run 4711",
            ),
            (
                {"issue_type": "gate", "await_type": "timer", "timeout": 3600 * 10**9},
                "Waits in Beads for timer, for 60 minutes at most",
            ),
            ({"issue_type": "gate"}, "Waits in Beads for a gate"),
            ({"await_type": "human"}, "Waits in Beads for human"),
            (
                {"defer_until": "2031-01-01T00:00:00Z"},
                "Deferred in Beads until 2031-01-01T00:00:00Z",
            ),
            (
                {"defer_until": "2026-06-01T01:00:00", "status": "deferred"},
                "Deferred in Beads until 2026-06-01T01:00:00",
            ),
            ({"defer_until": "+10000-01-01T00:00:00Z"}, "Deferred in Beads until +10000-"),
            ({"defer_until": "next week"}, "Deferred in Beads until next week"),
            ({"defer_until": 7}, "Deferred in Beads until 7"),
        ],
    )
    def test_hold_work_back(self, fields: dict[str, Any], reason: str) -> None:
        plan = read_beads(map(json.dumps, [issue("a", **fields), issue("b", "a")]), now=NOW)
        status, why = state(plan, "a")
        assert status == "blocked"
        assert (why or "").startswith(reason)
        assert pairs(plan) == {("b", "a")}

    @pytest.mark.parametrize(
        "date", ["2026-05-31T23:00:00Z", "0001-01-01T00:00:00Z", "2026-06-01T01:00:00+02:00", ""]
    )
    def test_a_date_that_has_passed_holds_nothing_back(self, date: str) -> None:
        plan = read_beads([json.dumps(issue("a", defer_until=date))], now=NOW)
        assert state(plan, "a") == ("pending", None)

    def test_a_gate_that_is_closed_is_done(self) -> None:
        assert read(issue("a", issue_type="gate", status="closed")).tasks[0].status == "completed"

    def test_a_phase_is_held_back_with_its_tasks(self) -> None:
        plan = read(epic("a", "w"), issue("a1", parent="a"), issue("w", ephemeral=True))
        [phase] = plan.phases
        assert (phase.status, phase.blocked_reason) == (
            "blocked",
            "Waits in Beads for w, which is not imported",
        )


class TestWhatIsLost:
    def test_a_child_of_what_is_no_work_waits_for_what_that_waited_for(self) -> None:
        plan = read(issue("m", "x", issue_type="molecule"), issue("m1", parent="m"), issue("x"))
        assert pairs(plan) == {("m1", "x")}
        assert task(plan, "m1").parent_ref is None

    def test_of_what_is_over_nothing_is_inherited(self) -> None:
        plan = read(
            issue("m", "x", issue_type="molecule", status="closed"),
            issue("m1", parent="m"),
            issue("x"),
        )
        assert pairs(plan) == set()

    def test_what_is_above_it_becomes_its_parent(self) -> None:
        plan = read(
            issue("p"), issue("m", parent="p", issue_type="molecule"), issue("m1", parent="m")
        )
        assert task(plan, "m1").parent_ref == "p"

    def test_what_a_second_parent_waits_for(self) -> None:
        plan = read(
            issue("p"), issue("q", "x"), issue("x"), issue("c", "parent-child:p", "parent-child:q")
        )
        assert task(plan, "c").parent_ref == "p"
        assert pairs(plan) == {("q", "x"), ("c", "x")}

    def test_an_open_child_does_not_wait_for_what_its_closed_parent_waited_for(self) -> None:
        plan = read(issue("p", "x", status="closed"), issue("x"), issue("c", parent="p"))
        assert pairs(plan) == set()
        assert plan.left_out[0].detail == "nothing waits here any longer: p is over"


class TestCyclesOverLevels:
    def test_a_parent_that_waits_for_its_child(self) -> None:
        plan = read(issue("p", "c"), issue("c", parent="p"))
        assert pairs(plan) == set()
        assert plan.left_out[0].detail == "would close the cycle p → c → p"

    def test_a_child_that_waits_for_what_waits_for_its_parent(self) -> None:
        plan = read(issue("p", "x"), issue("x", "c"), issue("c", parent="p"))
        assert len(plan.dependencies) == 1
        assert plan.left_out[0].outcome == "cycle"

    def test_a_child_may_wait_for_its_parent(self) -> None:
        plan = read(issue("p"), issue("c", "p", parent="p"))
        assert pairs(plan) == {("c", "p")}

    def test_siblings_may_wait_for_one_another(self) -> None:
        plan = read(
            issue("p", "x"), issue("x"), issue("c", "d", parent="p"), issue("d", parent="p")
        )
        assert pairs(plan) == {("p", "x"), ("c", "d")}

    def test_a_phase_whose_task_waits_for_what_waits_for_the_phase(self) -> None:
        plan = read(epic("e", "x"), issue("e1", parent="e"), issue("x", "e1"))
        assert [edge.outcome for edge in plan.left_out] == ["cycle"]
        assert_consistent(plan)


class TestDottedIds:
    def test_are_children_where_nothing_else_is_said(self) -> None:
        plan = read(epic("a"), issue("a.1"), issue("a.1.2"), issue("a.3.4"), issue("b.1"))
        assert [(one.ref, one.phase_ref, one.parent_ref) for one in plan.tasks] == [
            ("a.1", "a", None),
            ("a.1.2", "a", "a.1"),
            ("a.3.4", "a", None),
            ("b.1", None, None),
        ]

    def test_a_relation_says_it_better(self) -> None:
        plan = read(issue("a"), issue("b"), issue("a.1", parent="b"))
        assert task(plan, "a.1").parent_ref == "b"


class TestAliases:
    @pytest.mark.parametrize(
        ("fields", "category"),
        [
            ({"type": "spike"}, "research"),
            ({"issue_type": "Investigation"}, "research"),
            ({"issue_type": "timebox"}, "research"),
            ({"issue_type": "merge-request"}, "merge"),
            ({"issue_type": "custom"}, "execute"),
        ],
    )
    def test_of_types(self, fields: dict[str, Any], category: str) -> None:
        assert read(issue("a", **fields)).tasks[0].category == category

    def test_an_epic_by_its_other_field(self) -> None:
        plan = read({"id": "a", "title": "A", "type": "epic"}, issue("b", parent="a"))
        assert [phase.ref for phase in plan.phases] == ["a"]

    def test_dependencies_of_several_are_one(self) -> None:
        plan = read(issue("a"), issue("b", "a", "conditional-blocks:a"))
        assert plan.dependencies == (Dependency("b", "a"),)
