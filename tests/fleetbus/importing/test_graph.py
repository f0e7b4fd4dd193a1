from collections.abc import Set as AbstractSet
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetbus.importing import graph
from fleetbus.importing.graph import Layout, break_cycles, settle
from fleetbus.importing.plan import Dependency, SourceEdge
from tests.fleetbus.importing._execution import never_completed

REFS = [f"t{number}" for number in range(8)]
PHASES = [f"p{number}" for number in range(3)]

pairs = st.lists(st.tuples(st.sampled_from(REFS), st.sampled_from(REFS)), unique=True)
edges = st.lists(
    st.builds(
        SourceEdge,
        kind=st.just("blocks"),
        ref=st.sampled_from([*REFS, *PHASES]),
        depends_on=st.sampled_from([*REFS, *PHASES, "gone", "absent"]),
    ),
    max_size=40,
)
layouts = st.lists(st.sampled_from([None, *PHASES]), min_size=len(REFS), max_size=len(REFS)).map(
    lambda phases: layout(dict(zip(REFS, phases, strict=True)), skipped={"gone"})
)


def layout(phase_of: dict[str, str | None], *, skipped: AbstractSet[str] = frozenset()) -> Layout:
    return Layout(phase_of, {phase for phase in phase_of.values() if phase}, skipped)


def blocks(*names: str) -> list[SourceEdge]:
    ends = [name.split("→") for name in names]
    return [SourceEdge("blocks", ref, depends_on) for ref, depends_on in ends]


class TestBreakCycles:
    def test_keeps_a_graph_without_cycles(self) -> None:
        assert break_cycles([("a", "b"), ("b", "c"), ("a", "c")]) == {}

    def test_leaves_out_the_edge_that_closes_the_cycle(self) -> None:
        assert break_cycles([("a", "b"), ("b", "c"), ("c", "a")]) == {
            ("c", "a"): ("c", "a", "b", "c")
        }

    def test_two_cycles_lose_an_edge_each(self) -> None:
        assert set(break_cycles([("a", "b"), ("b", "a"), ("c", "d"), ("d", "c")])) == {
            ("b", "a"),
            ("d", "c"),
        }

    def test_a_very_long_cycle_needs_no_recursion(self) -> None:
        size = 50_000
        ring = [(str(number), str((number + 1) % size)) for number in range(size)]
        assert list(break_cycles(ring)) == [(str(size - 1), "0")]

    @given(pairs)
    def test_what_is_kept_is_acyclic_and_each_path_is_a_cycle(
        self, stated: list[tuple[str, str]]
    ) -> None:
        left_out = break_cycles(stated)
        kept = [Dependency(*pair) for pair in stated if pair not in left_out]

        assert never_completed(dict.fromkeys(REFS), kept, []) == set()
        for pair, path in left_out.items():
            steps = list(pairwise(path))
            assert steps[0] == pair
            assert path[0] == path[-1]
            assert set(steps[1:]) <= set(kept)


class TestScreening:
    @pytest.mark.parametrize(
        ("name", "outcome", "detail"),
        [
            ("a→a", "self", "a names itself"),
            ("a→nowhere", "dangling", "nowhere is not in the plan"),
            ("a→gone", "skipped", "gone is not imported"),
            ("gone→a", "skipped", "gone is not imported"),
        ],
    )
    def test_what_cannot_be_meant(self, name: str, outcome: str, detail: str) -> None:
        settled = settle(blocks(name), layout({"a": None}, skipped={"gone"}))
        assert [(edge.outcome, edge.detail) for edge in settled.edges] == [(outcome, detail)]
        assert settled.dependencies == ()

    def test_a_repetition(self) -> None:
        settled = settle(blocks("a→b", "a→b"), layout({"a": None, "b": None}))
        assert [edge.outcome for edge in settled.edges] == ["used", "duplicate"]
        assert settled.dependencies == (Dependency("a", "b"),)

    def test_a_decided_edge_stays_as_it_is(self) -> None:
        edge = SourceEdge("related", "a", "b", outcome="other_kind")
        assert settle([edge], layout({"a": None, "b": None})).edges == (edge,)


class TestPhases:
    plan = layout({"a": None, "e1": "E", "e2": "E", "f1": "F"})

    def test_a_task_that_waits_for_a_phase_waits_for_its_tasks(self) -> None:
        settled = settle(blocks("a→E"), self.plan)
        assert settled.dependencies == (Dependency("a", "e1"), Dependency("a", "e2"))

    def test_the_tasks_of_a_phase_wait_for_what_it_waits_for(self) -> None:
        settled = settle(blocks("E→a"), self.plan)
        assert settled.dependencies == (Dependency("e1", "a"), Dependency("e2", "a"))

    def test_a_phase_waits_for_a_phase(self) -> None:
        settled = settle(blocks("E→F"), self.plan)
        assert settled.dependencies == ()
        assert settled.phase_dependencies == (Dependency("E", "F"),)

    @pytest.mark.parametrize(
        ("names", "path"),
        [
            (["e1→E"], ("e1", "E", "e1")),
            (["E→e1"], ("E", "e1", "E")),
            (["E→F", "F→E"], ("F", "E", "F")),
            (["f1→e1", "E→F"], ("E", "F", "f1", "e1", "E")),
            (["a→E", "F→a", "E→F"], ("E", "F", "a", "E")),
        ],
    )
    def test_what_would_never_be_ready_is_left_out(
        self, names: list[str], path: tuple[str, ...]
    ) -> None:
        *kept, closing = settle(blocks(*names), self.plan).edges
        assert {edge.outcome for edge in kept} <= {"used"}
        assert (closing.outcome, closing.path[0], closing.path[-1]) == ("cycle", path[0], path[-1])
        assert set(closing.path) >= set(path)

    def test_an_edge_between_tasks_prevails_over_one_of_phases(self) -> None:
        settled = settle(blocks("E→F", "f1→e1"), self.plan)
        assert [edge.outcome for edge in settled.edges] == ["cycle", "used"]

    def test_expansion_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(graph, "MAX_EXPANDED", 3)
        settled = settle(blocks("a→E", "E→a", "F→a", "f1→E"), self.plan)
        assert [edge.outcome for edge in settled.edges] == ["used", "cycle", "used", "too_many"]


class TestSettle:
    @given(edges, layouts)
    def test_any_plan_can_be_executed_and_every_edge_is_accounted_for(
        self, stated: list[SourceEdge], plan: Layout
    ) -> None:
        settled = settle(stated, plan)

        assert [(edge.ref, edge.depends_on) for edge in settled.edges] == [
            (edge.ref, edge.depends_on) for edge in stated
        ]
        assert (
            never_completed(dict(plan.phase_of), settled.dependencies, settled.phase_dependencies)
            == set()
        )
        kept = set(settled.dependencies) | set(settled.phase_dependencies)
        used = {(e.ref, e.depends_on) for e in settled.edges if e.outcome == "used"}
        assert {pair for pair in used if set(pair) <= plan.phase_of.keys()} <= kept
        assert bool(kept) == bool(used)

    @given(edges, layouts)
    def test_the_same_plan_loses_the_same_edges(
        self, stated: list[SourceEdge], plan: Layout
    ) -> None:
        assert settle(stated, plan) == settle(stated, plan)
