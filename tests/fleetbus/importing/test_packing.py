import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.kit.ids import uuid7
from contracts.planning.phases import CreatePhase
from contracts.planning.tasks import CreateManyTasks
from fleetbus.importing.beads import read_beads
from fleetbus.importing.changes import compare
from fleetbus.importing.packing import Ids, PackedRequest, in_order, new_phase, pack
from fleetbus.importing.plan import Dependency, Plan, PlannedTask
from fleetbus.importing.present import Present
from tests.fleetbus.importing.test_beads_malformed import fields

MIB = 1024 * 1024


def task(ref: str, parent: str | None = None, description: str = "") -> PlannedTask:
    return PlannedTask(ref, ref, parent_ref=parent, description=description)


def packed(
    tasks: list[PlannedTask], *edges: tuple[str, str], there: tuple[str, ...] = (), room: int = MIB
) -> list[PackedRequest]:
    refs = [*(one.ref for one in tasks), *there]
    ids = Ids(uuid7(), {}, {ref: uuid7() for ref in refs}, dict.fromkeys(refs, 0))
    return list(pack(tasks, [Dependency(*edge) for edge in edges], ids, room))


def size(request: CreateManyTasks) -> int:
    return len(request.model_dump_json(exclude_unset=True).encode())


class TestOrder:
    def test_each_after_its_parent_and_what_it_waits_for(self) -> None:
        tasks = [task("a"), task("b"), task("c", "b"), task("d", "a")]
        order = in_order(tasks, [Dependency("a", "c"), Dependency("b", "elsewhere")])
        assert [one.ref for one in order] == ["b", "c", "a", "d"]

    def test_where_there_is_none_parents_still_come_first(self) -> None:
        tasks = [task("epic"), task("part", "epic"), task("free")]
        order = in_order(tasks, [Dependency("epic", "part")])
        assert [one.ref for one in order] == ["free", "epic", "part"]


class TestPack:
    def test_no_more_than_a_request_may_hold(self) -> None:
        requests = packed([task(f"t{number}") for number in range(1_001)])
        assert [len(one.request.items) for one in requests] == [500, 500, 1]

    def test_no_more_than_a_message_may_hold(self) -> None:
        tasks = [task(f"t{number}", description="ä\n" * 10_000) for number in range(20)]
        requests = packed(tasks, *((f"t{n + 1}", f"t{n}") for n in range(19)), room=100_000)
        assert len(requests) > 5
        assert sum(len(one.request.items) for one in requests) == 20
        assert sum(len(one.dependencies) for one in requests) == 19
        assert max(size(one.request) for one in requests) < 100_000

    def test_what_is_there_already_is_named_by_its_id(self) -> None:
        [one] = packed([task("a", "old"), task("b", "a")], ("a", "old"), there=("old",))
        first, second = one.request.items
        assert first.depends_on == [str(first.parent_task_id)]
        assert (second.parent, second.parent_task_id) == (first.ref, None)

    def test_a_dependency_on_what_comes_later_is_left_for_later(self) -> None:
        tasks = [task(f"t{number}") for number in range(501)]
        first, last = packed(tasks, ("t0", "t500"), ("t500", "t1"), ("t2", "t3"))
        assert first.dependencies == (Dependency("t2", "t3"),)
        assert last.dependencies == (Dependency("t500", "t1"),)


def requests(plan: Plan) -> Iterator[CreatePhase | CreateManyTasks]:
    """Everything that a first import of a plan sends; a request that is not valid raises."""
    changes = compare(plan, Present())
    refs = [*(one.ref for one in plan.tasks), *(one.ref for one in plan.phases)]
    everything = {ref: uuid7() for ref in refs}
    ids = Ids(uuid7(), everything, everything, dict.fromkeys(refs, 0))
    for phase in changes.new_phases:
        yield new_phase(phase, ids, waits=phase.ref in changes.waiting_phases)
    for one in pack(changes.new_tasks, changes.new_dependencies, ids, MIB):
        yield one.request


@given(st.lists(fields.map(json.dumps) | st.text(max_size=10), max_size=12))
def test_any_plan_makes_valid_requests(lines: list[str]) -> None:
    plan = read_beads(lines)
    made = list(requests(plan))
    items = [one.items for one in made if isinstance(one, CreateManyTasks)]
    assert sum(map(len, items)) == len(plan.tasks)
    assert len(made) - len(items) == len(plan.phases)


@pytest.mark.parametrize("text", ["a\n\n" * 33_000, "\U0001f600" * 100_000])
def test_a_phase_with_too_much_to_say_is_valid(text: str) -> None:
    issue = {"title": "T", "status": "odd" * 900, "description": text}
    epic = json.dumps({"id": "epic", "issue_type": "epic"} | issue)
    task = json.dumps({"id": "task", "parent": "epic"} | issue)
    phase, tasks = requests(read_beads([epic, task]))
    assert isinstance(phase, CreatePhase)
    assert phase.content
    assert isinstance(tasks, CreateManyTasks)
