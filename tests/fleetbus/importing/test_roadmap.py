from collections import Counter
from importlib.resources import as_file, files

import pytest

from fleetbus.importing.beads import open_beads
from fleetbus.importing.plan import Plan
from tests.fleetbus.importing._execution import assert_consistent


@pytest.fixture(scope="module")
def roadmap() -> Plan:
    with as_file(files("fleetbus").joinpath("demo", "roadmap.jsonl")) as path:
        return open_beads(path)


def test_reads_without_a_remark(roadmap: Plan) -> None:
    assert (roadmap.problems, roadmap.notes, roadmap.skipped, roadmap.left_out) == ((), (), (), ())
    assert_consistent(roadmap)


def test_is_forty_tasks_in_six_phases(roadmap: Plan) -> None:
    assert (len(roadmap.tasks), len(roadmap.phases)) == (40, 6)
    assert {task.phase_ref for task in roadmap.tasks} == {phase.ref for phase in roadmap.phases}
    assert {task.status for task in roadmap.tasks} == {"pending"}
    assert all(task.description.partition("\n\n## ")[0].endswith(".") for task in roadmap.tasks)
    assert len({task.name for task in roadmap.tasks}) == 40


def test_has_width_and_crosses_phases(roadmap: Plan) -> None:
    phase_of = {task.ref: task.phase_ref for task in roadmap.tasks}
    crossing = [edge for edge in roadmap.dependencies if phase_of[edge.ref] != phase_of[edge[1]]]
    levels: dict[str, int] = {}
    while len(levels) < len(phase_of):
        for ref in phase_of:
            needs = [edge.depends_on for edge in roadmap.dependencies if edge.ref == ref]
            if all(need in levels for need in needs):
                levels[ref] = max((levels[need] + 1 for need in needs), default=0)

    assert len(crossing) >= 20
    assert len(Counter(levels.values())) >= 6
    assert max(Counter(levels.values()).values()) >= 5
