from collections import Counter
from pathlib import Path

import pytest

from fleetbus.importing.beads import open_beads
from fleetbus.importing.plan import Plan
from fleetbus.importing.taskmaster import open_taskmaster
from tests.fleetbus.importing._execution import assert_consistent

DATA = Path(__file__).parents[3].parent / "shared" / "data"


def real(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not in ../shared/data beside the project")
    return path


@pytest.fixture(scope="module")
def beads() -> Plan:
    return open_beads(real("beads-issues.jsonl"))


@pytest.fixture(scope="module")
def taskmaster() -> Plan:
    return open_taskmaster(real("taskmaster-tasks.json"))


class TestBeads:
    def test_accounts_for_everything(self, beads: Plan) -> None:
        assert_consistent(beads)
        assert beads.summary() == {
            "records": 704,
            "tasks": 142,
            "phases": 6,
            "skipped": 556,
            "skipped: wisp": 542,
            "skipped: agent record": 9,
            "skipped: pinned": 2,
            "skipped: convoy record": 2,
            "skipped: message record": 1,
            "problems": 0,
            "parent-child edges": 360,
            "parent-child edges: skipped": 343,
            "parent-child edges: used": 12,
            "parent-child edges: dangling": 5,
            "blocks edges": 377,
            "blocks edges: skipped": 310,
            "blocks edges: met": 24,
            "blocks edges: dangling": 20,
            "blocks edges: used": 20,
            "blocks edges: held": 3,
            "discovered-from edges": 7,
            "discovered-from edges: other_kind": 7,
            "tracks edges": 2,
            "tracks edges: other_kind": 2,
            "task dependencies": 20,
            "phase dependencies": 0,
            "notes": 2,
            "not kept": 70,
        }

    def test_states_are_kept(self, beads: Plan) -> None:
        assert Counter(task.status for task in beads.tasks) == {
            "completed": 129,
            "pending": 10,
            "blocked": 3,
        }
        assert sum(task.summary is not None for task in beads.tasks) == 129
        assert len({phase.name for phase in beads.phases}) == 6

    def test_what_bd_ready_does_not_name_is_not_ready_here(self, beads: Plan) -> None:
        """Three open issues wait for wisps that are open; one of them is hooked besides."""
        assert {task.ref for task in beads.tasks if task.status == "blocked"} == {
            "bd-5ua",
            "bd-6bq",
            "bd-xmf",
        }


class TestTaskMaster:
    def test_accounts_for_everything(self, taskmaster: Plan) -> None:
        assert_consistent(taskmaster)
        assert taskmaster.summary() == {
            "records": 1105,
            "tasks": 1096,
            "phases": 9,
            "skipped": 0,
            "problems": 0,
            "dependencies edges": 974,
            "dependencies edges: used": 972,
            "dependencies edges: cycle": 1,
            "dependencies edges: dangling": 1,
            "task dependencies": 972,
            "phase dependencies": 0,
            "notes": 16,
            "not kept": 6,
        }

    def test_what_is_left_out_is_named(self, taskmaster: Plan) -> None:
        assert {(edge.ref, edge.detail) for edge in taskmaster.left_out} == {
            (
                "master/12.4",
                "would close the cycle master/12.4 → master/12.1 → master/12.4",
            ),
            ("test-tag/1", "test-tag/16 is not in the plan"),
        }

    def test_states_are_kept(self, taskmaster: Plan) -> None:
        assert sum(task.parent_ref is not None for task in taskmaster.tasks) == 914
        assert Counter(task.status for task in taskmaster.tasks) == {
            "completed": 578,
            "pending": 508,
            "blocked": 10,
        }
        assert Counter(task.blocked_reason for task in taskmaster.tasks if task.blocked_reason) == {
            "Deferred in Task Master": 5,
            "Cancelled in Task Master": 3,
            "In review in Task Master": 2,
        }
        assert Counter(phase.status for phase in taskmaster.phases) == {
            "pending": 8,
            "completed": 1,
        }
