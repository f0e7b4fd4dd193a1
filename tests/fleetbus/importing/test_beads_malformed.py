import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetbus.importing.beads import open_beads, read_beads
from fleetbus.importing.plan import PlanUnreadable
from tests.fleetbus.importing._execution import assert_consistent
from tests.fleetbus.importing.test_beads import issue, outcomes, read

KINDS = ["task", "bug", "epic", "agent", "molecule", "gate"]
IDS = ["bd-0", "bd-0.1", *(f"bd-{number}" for number in range(1, 6))]


class TestMalformedLines:
    @pytest.mark.parametrize(
        ("line", "text"),
        [
            ("nonsense", "not JSON: Expecting value at column 1"),
            ('{"id": "bd-2"', "not JSON: Expecting ',' delimiter at column 14"),
            ("[" * 100_000, "not JSON: nested too deeply"),
            ("[]", "not a JSON object"),
            ("null", "not a JSON object"),
            ("{}", "no id"),
            ('{"id": 7}', "no id"),
            ('{"id": "  "}', "no id"),
            ('{"id": "bd-1"}', "duplicate id bd-1"),
        ],
    )
    def test_is_a_problem_with_its_line(self, line: str, text: str) -> None:
        plan = read_beads([json.dumps(issue("bd-1")), "", line])
        assert_consistent(plan)
        assert [(problem.where, problem.text) for problem in plan.problems] == [("line 3", text)]
        assert len(plan.tasks) == 1

    def test_a_bare_record_has_its_id_for_a_name(self) -> None:
        plan = read({"id": "bd-1"})
        assert (plan.tasks[0].name, plan.tasks[0].status) == ("bd-1", "pending")

    def test_an_id_that_cannot_be_stored_is_changed_wherever_it_stands(self) -> None:
        long = "bd-" + "x" * 300 + "\x00"
        plan = read(issue(long), issue("bd-2", long))
        assert outcomes(plan) == ["used"]
        assert {note.ref for note in plan.notes} == {plan.tasks[0].ref}

    def test_a_record_without_an_id_is_found_again_by_its_title(self) -> None:
        bare: dict[str, object] = {"title": "A line with a title only"}
        plan = read(bare, bare)
        first, second = (one.ref for one in plan.tasks)
        assert read(bare).tasks[0].ref == first
        assert second == f"{first}~2"
        assert {note.text for note in plan.notes} == {"has no id; it is found again by its title"}

    def test_a_title_that_is_too_long_stands_whole_in_the_description(self) -> None:
        [one] = read({"id": "bd-1", "title": "x" * 2_000}).tasks
        assert one.name.endswith(" … cut: 469 of 2,000 characters")
        assert one.description == "## Title\n\n" + "x" * 2_000

    def test_a_description_of_a_megabyte_is_cut_with_a_mark(self) -> None:
        [one] = read(issue("bd-1", description="x" * 1_048_576, design="How.")).tasks
        assert len(one.description) <= 100_000
        assert " of 1,048,576 characters" in one.description
        assert one.description.endswith("## Design\n\nHow.")


class TestOtherLines:
    def test_memories_and_headers_are_named(self) -> None:
        lines = [
            {"_schema": "beads-jsonl/1"},
            {"_type": "memory", "key": "style", "value": "Tabs are forbidden."},
            {"_type": "memory"},
            {"_type": "memory", "key": 7},
            {"_type": "issue", "id": "bd-1", "title": "T"},
        ]
        plan = read_beads(map(json.dumps, lines))
        assert_consistent(plan)
        assert [(one.ref, one.reason) for one in plan.skipped] == [
            ("line 1", "header"),
            ("style", "memory"),
            ("line 3", "memory"),
            ("7", "memory"),
        ]
        assert (len(plan.tasks), plan.not_kept) == (1, ())


class TestOpenBeads:
    def test_bytes_that_are_no_text_cost_no_line(self, tmp_path: Path) -> None:
        path = tmp_path / "issues.jsonl"
        path.write_bytes(
            b'\xef\xbb\xbf{"id": "bd-1", "title": "caf\xe9"}\r\n'
            b'{"id": "bd-2", "title": "a\x00b\\u0000c\\ud800"}\n\x00\xff\n'
        )
        plan = open_beads(path)
        assert [one.name for one in plan.tasks] == ["caf\ufffd", "a\ufffdb\ufffdc\ufffd"]
        assert [note.text for note in plan.notes] == [
            "title had 1 characters that cannot be stored, now U+FFFD",
            "title had 3 characters that cannot be stored, now U+FFFD",
        ]
        assert [problem.where for problem in plan.problems] == ["line 3"]

    def test_the_name_is_that_of_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "issues.jsonl"
        path.write_text('{"id": "bd-1", "title": "a\u2028b"}\r\n', encoding="utf-8")
        plan = open_beads(path)
        assert (plan.name, plan.tasks[0].name) == ("issues", "a\u2028b")

    @pytest.mark.parametrize(
        ("content", "reason"), [("", "is empty"), ("# A plan\n\nText.", "line 1: not JSON")]
    )
    def test_a_file_without_any_record(self, tmp_path: Path, content: str, reason: str) -> None:
        path = tmp_path / "plan.md"
        path.write_text(content, encoding="utf-8")
        with pytest.raises(PlanUnreadable, match=reason):
            open_beads(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(IDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
fields = st.fixed_dictionaries(
    {"id": st.sampled_from(IDS) | json_values},
    optional={
        "title": json_values,
        "status": st.sampled_from(["open", "closed", "tombstone", "pinned"]) | json_values,
        "ephemeral": st.booleans() | json_values,
        "defer_until": st.sampled_from(["2031-01-01T00:00:00Z"]) | json_values,
        "labels": json_values,
        "comments": json_values | st.lists(st.fixed_dictionaries({"text": json_values})),
        "metadata": json_values,
        "assignee": json_values,
        "issue_type": st.sampled_from(KINDS) | json_values,
        "priority": json_values,
        "parent": st.sampled_from(IDS) | json_values,
        "dependencies": json_values
        | st.lists(
            st.fixed_dictionaries(
                {
                    "depends_on_id": st.sampled_from(IDS) | json_values,
                    "type": st.sampled_from(["blocks", "parent-child", "waits-for"]) | json_values,
                    "metadata": st.sampled_from(['{"gate":"any-children"}', "{}"]) | json_values,
                }
            ),
            max_size=5,
        ),
    },
)


@given(st.lists(fields.map(json.dumps) | st.text(max_size=10), max_size=12))
def test_any_lines_make_a_plan_that_can_be_executed(lines: list[str]) -> None:
    assert_consistent(read_beads(lines))
