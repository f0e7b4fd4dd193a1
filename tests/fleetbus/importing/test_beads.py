import json
from typing import Any

import pytest

from fleetbus.importing.beads import read_beads
from fleetbus.importing.plan import Dependency, Plan, PlannedTask
from tests.fleetbus.importing._execution import assert_consistent


def issue(ref: str, *needs: str, parent: str = "", **fields: Any) -> dict[str, object]:
    """An issue; a need is an id, or `kind:id` for another relation than blocks."""
    edges = [need.rpartition(":") for need in needs]
    entries: list[dict[str, str]] = [
        {"issue_id": ref, "depends_on_id": to, "type": kind or "blocks"} for kind, _, to in edges
    ]
    if parent:
        entries.append({"issue_id": ref, "depends_on_id": parent, "type": "parent-child"})
    return {"id": ref, "title": ref.upper(), "dependencies": entries, **fields}


def epic(ref: str, *needs: str, **fields: Any) -> dict[str, object]:
    return issue(ref, *needs, issue_type="epic", **fields)


def read(*issues: dict[str, object]) -> Plan:
    plan = read_beads(json.dumps(record) for record in issues)
    assert_consistent(plan)
    return plan


def task(plan: Plan, ref: str) -> PlannedTask:
    return next(task for task in plan.tasks if task.ref == ref)


def outcomes(plan: Plan) -> list[str]:
    return [edge.outcome for edge in plan.edges]


class TestFields:
    def test_an_issue_becomes_a_task(self) -> None:
        plan = read(
            issue(
                "bd-1",
                title="Write it",
                description="What.",
                design="How.",
                acceptance_criteria="When.",
                notes="By the way.",
                status="closed",
                priority=0,
                close_reason="Written",
            )
        )
        assert plan.tasks == (
            PlannedTask(
                ref="bd-1",
                name="Write it",
                description="What.\n\n## Design\n\nHow.\n\n## Acceptance criteria\n\nWhen."
                "\n\n## Notes\n\nBy the way.",
                priority="high",
                status="completed",
                summary="Written",
            ),
        )
        assert plan.notes == ()

    @pytest.mark.parametrize(
        ("value", "priority"),
        [(0, "high"), (1, "high"), (2, "medium"), (3, "low"), (4, "low")],
    )
    def test_priorities(self, value: object, priority: str) -> None:
        plan = read(issue("bd-1", priority=value))
        assert (plan.tasks[0].priority, plan.notes) == (priority, ())

    @pytest.mark.parametrize("value", [5, -1, True, "P1", 1.0, None, [1]])
    def test_a_priority_that_is_none_is_medium_and_noted(self, value: object) -> None:
        plan = read(issue("bd-1", priority=value))
        assert (plan.tasks[0].priority, len(plan.notes)) == ("medium", 1)

    @pytest.mark.parametrize(
        ("word", "status", "reason", "noted"),
        [
            ("open", "pending", None, 0),
            ("in_progress", "pending", None, 1),
            ("In-Progress", "pending", None, 1),
            ("hooked", "blocked", "Hooked in Beads: a worker there has it", 0),
            ("closed", "completed", None, 0),
            ("blocked", "blocked", "Blocked in Beads", 0),
            ("deferred", "blocked", "Deferred in Beads", 0),
            ("simmering", "blocked", "Status 'simmering' in Beads", 1),
        ],
    )
    def test_statuses(self, word: str, status: str, reason: str | None, noted: int) -> None:
        plan = read(issue("bd-1", status=word))
        assert (plan.tasks[0].status, plan.tasks[0].blocked_reason) == (status, reason)
        assert len(plan.notes) == noted

    @pytest.mark.parametrize(
        ("fields", "reason", "outcome"),
        [
            ({"status": "tombstone"}, "tombstone", "met"),
            ({"deleted_at": "2026-01-01T00:00:00Z"}, "tombstone", "met"),
            ({"status": "pinned"}, "pinned", "met"),
            ({"pinned": True}, "pinned", "met"),
            ({"issue_type": "agent"}, "agent record", "held"),
            ({"issue_type": "message"}, "message record", "held"),
            ({"issue_type": "molecule"}, "molecule record", "held"),
            ({"issue_type": "molecule", "status": "closed"}, "molecule record", "met"),
            ({"is_template": True}, "template", "held"),
            ({"ephemeral": True}, "wisp", "held"),
            ({"wisp": True, "status": "closed"}, "wisp", "met"),
        ],
    )
    def test_what_is_no_work_is_skipped(
        self, fields: dict[str, Any], reason: str, outcome: str
    ) -> None:
        plan = read(issue("bd-1", **fields), issue("bd-2", "bd-1", parent="bd-1"))
        assert [(record.ref, record.reason) for record in plan.skipped] == [("bd-1", reason)]
        assert outcomes(plan) == ["skipped", outcome]
        assert task(plan, "bd-2").status == ("pending" if outcome == "met" else "blocked")

    def test_a_pinned_record_that_is_closed_was_work(self) -> None:
        assert read(issue("bd-1", pinned=True, status="closed")).tasks[0].status == "completed"


class TestEpics:
    def test_an_epic_with_children_is_a_phase(self) -> None:
        plan = read(
            epic("bd-1", description="Why."),
            issue("bd-2", parent="bd-1"),
            issue("bd-3", parent="bd-2"),
        )
        assert [(phase.ref, phase.name, phase.description) for phase in plan.phases] == [
            ("bd-1", "BD-1", "Why.")
        ]
        assert [(t.ref, t.phase_ref, t.parent_ref) for t in plan.tasks] == [
            ("bd-2", "bd-1", None),
            ("bd-3", "bd-1", "bd-2"),
        ]

    def test_an_epic_without_children_is_a_task(self) -> None:
        plan = read(epic("bd-1"), issue("bd-2", "bd-1"))
        assert (plan.phases, len(plan.tasks)) == ((), 2)
        assert plan.dependencies == (Dependency("bd-2", "bd-1"),)

    def test_an_epic_within_an_epic_is_a_parent_task(self) -> None:
        plan = read(issue("bd-3", parent="bd-2"), epic("bd-2", parent="bd-1"), epic("bd-1"))
        assert [phase.ref for phase in plan.phases] == ["bd-1"]
        assert [(t.ref, t.phase_ref, t.parent_ref) for t in plan.tasks] == [
            ("bd-2", "bd-1", None),
            ("bd-3", "bd-1", "bd-2"),
        ]

    def test_a_closed_epic_is_completed_when_its_tasks_are(self) -> None:
        plan = read(
            epic("bd-1", status="closed"),
            issue("bd-2", parent="bd-1", status="closed"),
            epic("bd-3", status="closed"),
            issue("bd-4", parent="bd-3"),
            epic("bd-5", status="deferred"),
            issue("bd-6", parent="bd-5"),
        )
        assert [(phase.status, phase.blocked_reason) for phase in plan.phases] == [
            ("completed", None),
            ("pending", None),
            ("blocked", "Deferred in Beads"),
        ]
        assert [note.ref for note in plan.notes] == ["bd-3"]

    def test_phases_have_names_of_their_own(self) -> None:
        plan = read(
            epic("bd-1", title="Patrol"),
            issue("bd-2", parent="bd-1"),
            epic("bd-3", title="Patrol"),
            issue("bd-4", parent="bd-3"),
        )
        assert [phase.name for phase in plan.phases] == ["Patrol", "Patrol (bd-3)"]

    def test_relations_of_phases(self) -> None:
        plan = read(
            epic("bd-1"),
            issue("bd-2", parent="bd-1"),
            epic("bd-3", "bd-1"),
            issue("bd-4", parent="bd-3"),
            issue("bd-5", "bd-3"),
        )
        assert plan.phase_dependencies == (Dependency("bd-3", "bd-1"),)
        assert plan.dependencies == (Dependency("bd-5", "bd-4"),)


class TestRelations:
    def test_blocks_is_a_dependency_and_other_kinds_are_reported(self) -> None:
        plan = read(issue("bd-1", "bd-2", "related:bd-2", "tracks:bd-2"), issue("bd-2"))
        assert plan.dependencies == (Dependency("bd-1", "bd-2"),)
        assert [edge.detail for edge in plan.left_out] == [
            "related does not order tasks; it is named in the description",
            "tracks does not order tasks; it is named in the description",
        ]
        assert task(plan, "bd-1").description == "## In Beads\n\n- Related: bd-2\n- Tracks: bd-2"

    def test_a_missing_id_is_named(self) -> None:
        plan = read(issue("bd-1", "external-x-y", parent="bd-9"))
        assert [edge.detail for edge in plan.edges] == [
            "bd-9 is not in the plan",
            "external-x-y is not in the plan",
        ]

    def test_a_cycle_is_left_out_with_its_path(self) -> None:
        plan = read(issue("bd-1", "bd-2"), issue("bd-2", "bd-3"), issue("bd-3", "bd-1"))
        assert plan.left_out[0].detail == "would close the cycle bd-3 → bd-1 → bd-2 → bd-3"
        assert len(plan.dependencies) == 2

    def test_parents_in_a_circle(self) -> None:
        plan = read(
            issue("bd-1", parent="bd-2"), issue("bd-2", parent="bd-1"), issue("bd-3", parent="bd-3")
        )
        assert outcomes(plan) == ["used", "cycle", "self"]
        assert task(plan, "bd-1").parent_ref == "bd-2"
        assert task(plan, "bd-2").parent_ref is None

    def test_a_second_parent_is_left_out(self) -> None:
        plan = read(
            issue("bd-1", "parent-child:bd-9", "parent-child:bd-2", "parent-child:bd-3"),
            issue("bd-2"),
            issue("bd-3"),
        )
        assert outcomes(plan) == ["dangling", "used", "second_parent"]
        assert task(plan, "bd-1").parent_ref == "bd-2"

    def test_the_parent_field_counts_where_no_relation_says_it(self) -> None:
        plan = read({"id": "bd-1", "title": "T", "parent": "bd-2"}, issue("bd-2"))
        assert task(plan, "bd-1").parent_ref == "bd-2"

    @pytest.mark.parametrize(
        "entry",
        [
            None,
            "bd-2",
            {},
            {"depends_on_id": 2},
            {"depends_on_id": " "},
            {"depends_on_id": "bd-2", "type": 1},
            {"depends_on_id": "bd-2", "issue_id": "bd-7"},
        ],
    )
    def test_a_malformed_entry_is_reported(self, entry: object) -> None:
        plan = read({"id": "bd-1", "title": "T", "dependencies": [entry]}, issue("bd-2"))
        assert outcomes(plan) == ["malformed"]

    def test_dependencies_that_are_no_list(self) -> None:
        plan = read({"id": "bd-1", "title": "T", "dependencies": {"bd-2": 1}})
        assert [note.text for note in plan.notes] == ["dependencies is not a list and was left out"]
