import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetbus.importing.plan import Dependency, Plan, PlannedTask, PlanUnreadable
from fleetbus.importing.taskmaster import open_taskmaster, read_taskmaster
from tests.fleetbus.importing._execution import assert_consistent


def item(number: object, *needs: object, **fields: object) -> dict[str, object]:
    return {"id": number, "title": f"T{number}", "dependencies": list(needs), **fields}


def read(*items: object, **tags: object) -> Plan:
    document = {"main": {"tasks": list(items)}} if items else {}
    plan = read_taskmaster({**document, **tags})
    assert_consistent(plan)
    return plan


def pairs(plan: Plan) -> set[tuple[str, str]]:
    return {(edge.ref, edge.depends_on) for edge in plan.dependencies}


class TestFields:
    def test_a_task(self) -> None:
        plan = read(
            item(
                3,
                title="Write it",
                description="What.",
                details="How.",
                testStrategy="Whether.",
                status="done",
                priority="high",
            )
        )
        assert plan.tasks == (
            PlannedTask(
                ref="main/3",
                name="Write it",
                phase_ref="main",
                description="What.\n\n## Details\n\nHow.\n\n## Test strategy\n\nWhether.",
                priority="high",
                status="completed",
            ),
        )

    @pytest.mark.parametrize(
        ("word", "status", "reason", "noted"),
        [
            ("pending", "pending", None, 0),
            ("todo", "pending", None, 0),
            ("in-progress", "pending", None, 1),
            ("In_Progress", "pending", None, 1),
            ("Done", "completed", None, 0),
            ("done", "completed", None, 0),
            ("completed", "completed", None, 0),
            ("review", "blocked", "In review in Task Master", 0),
            ("blocked", "blocked", "Blocked in Task Master", 0),
            ("deferred", "blocked", "Deferred in Task Master", 0),
            ("cancelled", "blocked", "Cancelled in Task Master", 0),
            ("simmering", "blocked", "Status 'simmering' in Task Master", 1),
        ],
    )
    def test_statuses(self, word: str, status: str, reason: str | None, noted: int) -> None:
        plan = read(item(1, status=word))
        assert (plan.tasks[0].status, plan.tasks[0].blocked_reason) == (status, reason)
        assert len(plan.notes) == noted

    def test_all_that_is_known_has_a_place(self) -> None:
        plan = read(
            item(
                1,
                description="What.",
                acceptanceCriteria=["One.", "Two."],
                metadata={"ticket": 7},
                complexity=4,
                assignee="ana",
                updatedAt="2026-05-01T08:00:00Z",
                previousStatus="review",
                subtasks=[item(1, parentTaskId=1)],
            )
        )
        assert plan.tasks[0].description == (
            "What.\n\n## Acceptance criteria\n\n- One.\n- Two."
            '\n\n## Metadata\n\n```json\n{"ticket":7}\n```'
            "\n\n## In Task Master\n\n- Assignee: ana\n- Complexity: 4\n- Previous status: review"
            "\n- Updated: 2026-05-01T08:00:00Z"
        )
        assert plan.not_kept == ()

    def test_what_has_no_place_is_named(self) -> None:
        tag = {"tasks": [item(1, colour="red")], "metadata": {"created": "2026", "size": 1}, "x": 1}
        plan = read(work=tag)
        assert [(note.ref, note.text) for note in plan.not_kept] == [
            ("work/1", "colour is not kept"),
            ("work", "size is not kept"),
            ("work", "x is not kept"),
        ]
        assert plan.phases[0].description == "## In Task Master\n\n- Created: 2026"

    def test_a_subtask_has_the_priority_of_its_parent_unless_it_has_one(self) -> None:
        plan = read(item(1, priority="critical", subtasks=[item(1), item(2, priority="low")]))
        assert [task.priority for task in plan.tasks] == ["high", "high", "low"]

    def test_an_unknown_priority_is_noted(self) -> None:
        plan = read(item(1, priority="urgent"))
        assert plan.tasks[0].priority == "medium"
        assert [note.text for note in plan.notes] == [
            "priority 'urgent' is unknown, imported as medium"
        ]


class TestTags:
    def test_a_tag_is_a_phase(self) -> None:
        plan = read(
            one={"tasks": [item(1)], "metadata": {"description": "Why."}},
            two={"tasks": [item(1, status="done")]},
            three={"tasks": []},
        )
        assert [(phase.ref, phase.description, phase.status) for phase in plan.phases] == [
            ("one", "Why.", "pending"),
            ("two", "", "completed"),
        ]
        assert [task.ref for task in plan.tasks] == ["one/1", "two/1"]
        assert [(record.ref, record.reason) for record in plan.skipped] == [
            ("three", "tag without tasks")
        ]

    def test_a_file_from_before_there_were_tags(self) -> None:
        plan = read(tasks=[item(1)], metadata={})
        assert [task.ref for task in plan.tasks] == ["master/1"]

    def test_names_that_meet_are_told_apart(self) -> None:
        plan = read(**{"a": {"tasks": [item("b/1")]}, "a/b": {"tasks": [item(1)]}, "a/b/1": {}})
        assert [task.ref for task in plan.tasks] == ["a/b/1~2", "a/b/1~3"]


class TestDependencies:
    def test_ids_are_those_of_the_tag(self) -> None:
        plan = read(one={"tasks": [item(1), item("2", 1)]}, two={"tasks": [item(1), item(2, "1")]})
        assert pairs(plan) == {("one/2", "one/1"), ("two/2", "two/1")}

    def test_a_number_without_a_dot_is_a_sibling_first(self) -> None:
        plan = read(
            item(1),
            item(2, subtasks=[item(1), item(2, 1), item(3, "2"), item(4, 9)]),
            item(9),
        )
        assert pairs(plan) == {
            ("main/2.2", "main/2.1"),
            ("main/2.3", "main/2.2"),
            ("main/2.4", "main/9"),
        }

    def test_a_number_with_a_dot_is_a_path(self) -> None:
        plan = read(item(1, subtasks=[item(1), item(2, "1.1")]), item(2, "1.2"))
        assert pairs(plan) == {("main/1.2", "main/1.1"), ("main/2", "main/1.2")}

    def test_subtasks_of_subtasks(self) -> None:
        plan = read(item(1, subtasks=[item(1, subtasks=[item(1), item("1.1.2", 1)])]))
        assert [(task.ref, task.parent_ref) for task in plan.tasks][2:] == [
            ("main/1.1.1", "main/1.1"),
            ("main/1.1.2", "main/1.1"),
        ]
        assert plan.dependencies == (Dependency("main/1.1.2", "main/1.1.1"),)

    @pytest.mark.parametrize(
        ("needs", "outcome"),
        [
            ([7], "dangling"),
            (["2.7"], "dangling"),
            ([1], "self"),
            ([None], "malformed"),
            ([True], "malformed"),
            ([2.1], "malformed"),
            ([{"id": 2}], "malformed"),
            (["2", 2], "duplicate"),
        ],
    )
    def test_what_is_left_out(self, needs: list[object], outcome: str) -> None:
        plan = read(item(1, *needs), item(2))
        assert [edge.outcome for edge in plan.left_out] == [outcome]

    def test_a_task_that_waits_for_its_subtask(self) -> None:
        plan = read(item(1, "1.1", subtasks=[item(1)]))
        assert plan.left_out[0].detail == "would close the cycle main/1 → main/1.1 → main/1"

    def test_a_cycle(self) -> None:
        plan = read(item(1, 2), item(2, 1))
        assert [edge.detail for edge in plan.left_out] == [
            "would close the cycle main/2 → main/1 → main/2"
        ]

    def test_a_missing_sibling_is_named_as_one(self) -> None:
        plan = read(item(1, subtasks=[item(1, 5)]))
        assert plan.left_out[0].detail == "main/1.5 is not in the plan"


class TestMalformed:
    def test_subtasks_that_share_an_id_are_all_kept(self) -> None:
        plan = read(item(42, subtasks=[item(42), item(42), item(1, 42)]))
        assert [task.ref for task in plan.tasks] == [
            "main/42",
            "main/42.42",
            "main/42.42~2",
            "main/42.1",
        ]
        assert pairs(plan) == {("main/42.1", "main/42.42")}
        assert [note.text for note in plan.notes] == [
            "42.42 is the id of an earlier task of the tag"
        ]

    @pytest.mark.parametrize(
        ("broken", "text"),
        [
            ("text", "not a JSON object"),
            (None, "not a JSON object"),
            ({}, "no id"),
            ({"id": True}, "no id"),
            ({"id": " "}, "no id"),
            ({"id": 1.5}, "no id"),
        ],
    )
    def test_a_broken_task_is_a_problem_with_its_place(self, broken: object, text: str) -> None:
        plan = read(item(1), broken)
        assert [(p.where, p.text) for p in plan.problems] == [("tag main, task 2", text)]
        assert len(plan.tasks) == 1

    def test_the_subtasks_of_a_broken_task_are_accounted_for(self) -> None:
        plan = read(item(1), {"subtasks": [item(1), item(2, subtasks=[item(1)])]})
        assert [problem.text for problem in plan.problems] == [
            "no id",
            *["subtask of an unreadable task"] * 3,
        ]

    def test_a_broken_subtask(self) -> None:
        plan = read(item(1, subtasks=[item(1), 7]), item(2, subtasks={}))
        assert [problem.where for problem in plan.problems] == ["task main/1, subtask 2"]
        assert [note.text for note in plan.notes] == ["subtasks is not a list and was left out"]

    @pytest.mark.parametrize("content", [None, [], {}, {"tasks": {}}])
    def test_a_broken_tag(self, content: object) -> None:
        plan = read(item(1), other=content)
        assert [problem.where for problem in plan.problems] == ["tag other"]


class TestOpenTaskMaster:
    def test_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "tasks.json"
        path.write_text(json.dumps({"main": {"tasks": [item(1)]}}), encoding="utf-8")
        assert open_taskmaster(path).name == "tasks"
        assert open_taskmaster(path, name="mine").name == "mine"

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ("", "not JSON"),
            ("{\n", "not JSON: .* at line 2"),
            ("[]", "no plan of this kind"),
            ('{"a": 1}', "no plan of this kind: tag a"),
            ("{}", "is empty"),
        ],
    )
    def test_a_file_without_a_plan(self, tmp_path: Path, content: str, reason: str) -> None:
        path = tmp_path / "tasks.json"
        path.write_text(content, encoding="utf-8")
        with pytest.raises(PlanUnreadable, match=reason):
            open_taskmaster(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(0, 5) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
needs = st.lists(st.integers(0, 5) | st.sampled_from(["1.1", "2.1", "1.2"]) | json_values)
items = st.recursive(
    st.builds(item, st.integers(0, 4)),
    lambda inner: st.builds(
        lambda number, needs, subtasks: item(number, subtasks=subtasks, dependencies=needs),
        st.integers(0, 4) | json_values,
        needs | json_values,
        st.lists(inner, max_size=4) | json_values,
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=3), st.builds(dict, tasks=st.lists(items)) | json_values))
def test_any_document_makes_a_plan_that_can_be_executed(document: object) -> None:
    assert_consistent(read_taskmaster(document))
