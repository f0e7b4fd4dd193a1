"""What a Beads record says is kept in the description, or named."""

import json
from typing import Any

import pytest

from contracts.planning.tasks import ListTasks
from fleetbus.client import Bus
from fleetbus.importing.beads import read_beads
from fleetbus.importing.load import load_plan
from fleetbus.importing.plan import Note
from tests.fleetbus.importing.test_beads import epic, issue, read

EVERYTHING: dict[str, Any] = {
    "description": "What.",
    "design": "How.",
    "acceptance_criteria": "When.",
    "notes": "By the way.",
    "issue_type": "bug",
    "status": "in_progress",
    "assignee": "ana",
    "owner": "bo",
    "created_by": "cy",
    "labels": ["db", "ui"],
    "estimated_minutes": 30,
    "created_at": "2026-05-01T08:00:00Z",
    "due_at": "2026-07-01T08:00:00Z",
    "external_ref": "gh-9",
    "spec_id": "spec-1",
    "metadata": {"files": ["a.py"]},
    "comments": [
        {"id": "c1", "author": "ana", "text": "Use it.", "created_at": "2026-05-02T08:00:00Z"},
        {"id": 2, "text": "Why?"},
    ],
}


class TestDescription:
    def test_all_that_is_known_has_a_place(self) -> None:
        plan = read(issue("bd-1", "related:bd-2", **EVERYTHING), issue("bd-2"))
        assert plan.tasks[0].description == (
            "What.\n\n## Design\n\nHow.\n\n## Acceptance criteria\n\nWhen."
            "\n\n## Notes\n\nBy the way."
            "\n\n## In Beads\n\n- Type: bug\n- Status: in_progress\n- Assignee: ana\n- Owner: bo"
            "\n- Created by: cy\n- Labels: db, ui\n- Estimated minutes: 30"
            "\n- Created: 2026-05-01T08:00:00Z\n- Due: 2026-07-01T08:00:00Z"
            "\n- External reference: gh-9\n- Specification: spec-1\n- Related: bd-2"
            '\n\n## Metadata\n\n```json\n{"files":["a.py"]}\n```'
            "\n\n## Comments\n\n**ana, 2026-05-02T08:00:00Z**\n\nUse it.\n\nWhy?"
        )
        assert plan.not_kept == ()

    def test_a_phase_says_it_too(self) -> None:
        plan = read(
            epic("bd-1", priority=0, labels=["ui"], close_reason="Done", status="closed"),
            issue("bd-2", parent="bd-1", status="closed"),
        )
        assert plan.phases[0].description == (
            "## In Beads\n\n- Priority: high\n- Labels: ui\n- Close reason: Done"
        )

    def test_why_it_was_closed_stays_with_what_is_open_again(self) -> None:
        plan = read(issue("bd-1", close_reason="Done"))
        assert (plan.tasks[0].summary, plan.tasks[0].description) == (
            None,
            "## In Beads\n\n- Close reason: Done",
        )

    @pytest.mark.parametrize("labels", ["db", ["db", 7], {"db": 1}, 7])
    def test_labels_of_all_kinds(self, labels: object) -> None:
        assert "- Labels: " in read(issue("bd-1", labels=labels)).tasks[0].description

    @pytest.mark.parametrize("comments", [[None], ["text"], [{"text": 7}], [{}]])
    def test_a_comment_without_a_text_is_named(self, comments: object) -> None:
        plan = read(issue("bd-1", comments=comments))
        assert [note.text for note in plan.notes] == ["comment 1 has no text and was left out"]


class TestNotKept:
    def test_what_has_no_place_is_named(self) -> None:
        record = issue("bd-1", "bd-2", colour="red", empty=None, dependency_count=3)
        record["dependencies"][0]["created_by"] = "ana"  # type: ignore[index]  # it is a list
        plan = read(record, issue("bd-2", payload="{}"))
        assert plan.not_kept == (
            Note("bd-1", "colour is not kept"),
            Note("bd-1", "created_by of its dependencies is not kept"),
            Note("bd-2", "payload is not kept"),
        )

    def test_a_name_that_cannot_be_printed(self) -> None:
        [note] = read({**issue("bd-1"), "\ud800\x00": 1}).not_kept
        assert note.text == "\ufffd\ufffd is not kept"

    async def test_the_report_says_so(self, bus: Bus) -> None:
        report = await load_plan(bus, read(issue("bd-1", colour="red")))
        assert ("not kept", "bd-1", "colour is not kept") in report.remarks()


class TestSecondImport:
    async def test_changes_nothing_and_then_what_was_changed(self, bus: Bus) -> None:
        first = issue("bd-1", **EVERYTHING)
        await load_plan(bus, read_beads([json.dumps(first)]))
        assert (await load_plan(bus, read_beads([json.dumps(first)]))).unchanged

        comments = [*EVERYTHING["comments"], {"text": "Because."}]
        later = await load_plan(bus, read_beads([json.dumps({**first, "comments": comments})]))
        assert (later.tasks.created, later.tasks.updated) == (0, 1)
        [stored] = (await bus.call(ListTasks())).items
        assert (stored.description or "").endswith("Why?\n\nBecause.")
