from fleetbus.importing.plan import (
    Dependency,
    Note,
    PlannedPhase,
    PlannedTask,
    SourceEdge,
    notes_on_order,
    parents_first,
    unfinished_phases,
)


class TestContent:
    def test_a_paragraph_for_each_block(self) -> None:
        content = PlannedPhase("p", "P", "one\ntwo\n\n\n\nthree").content
        assert content is not None
        assert [block["content"][0]["text"] for block in content["content"]] == [
            "one\ntwo",
            "three",
        ]

    def test_nothing_without_a_description(self) -> None:
        assert PlannedPhase("p", "P", " \n\n ").content is None


class TestParentsFirst:
    def test_keeps_the_order_but_for_parents(self) -> None:
        tasks = [
            PlannedTask("a", "A"),
            PlannedTask("c", "C", parent_ref="b"),
            PlannedTask("b", "B", parent_ref="d"),
            PlannedTask("d", "D"),
        ]
        assert [task.ref for task in parents_first(tasks)] == ["a", "d", "b", "c"]

    def test_a_very_long_line_of_descent(self) -> None:
        size = 5_000
        tasks = [PlannedTask(str(n), "T", parent_ref=str(n + 1)) for n in range(size)]
        tasks.append(PlannedTask(str(size), "T"))
        assert parents_first(tasks)[0].ref == str(size)


class TestDetail:
    def test_a_long_cycle_is_shortened(self) -> None:
        path = tuple(f"t{number}" for number in range(100))
        detail = SourceEdge("blocks", "t0", "t1", outcome="cycle", path=path).detail
        assert "(88 more)" in detail
        assert detail.endswith("t98 → t99")

    def test_braces_in_an_id_are_no_format(self) -> None:
        assert "{x}" in SourceEdge("blocks", "a", "{x}", outcome="dangling").detail


class TestUnfinishedPhases:
    def test_a_phase_with_an_open_task(self) -> None:
        tasks = [
            PlannedTask("a", "A", phase_ref="p", status="completed"),
            PlannedTask("b", "B", phase_ref="p"),
            PlannedTask("c", "C", phase_ref="q", status="completed"),
            PlannedTask("d", "D"),
        ]
        assert unfinished_phases(tasks) == {"p"}


class TestNotesOnOrder:
    def test_names_blocked_tasks_that_others_wait_for(self) -> None:
        tasks = [PlannedTask("a", "A", status="blocked"), PlannedTask("b", "B")]
        assert notes_on_order(tasks, [Dependency("b", "a")]) == [
            Note("a", "blocked, with pending tasks that wait for it: 1")
        ]

    def test_names_blocked_tasks_with_others_below_them(self) -> None:
        tasks = [
            PlannedTask("a", "A", status="blocked"),
            PlannedTask("b", "B", parent_ref="a"),
            PlannedTask("c", "C", parent_ref="a", status="completed"),
        ]
        assert notes_on_order(tasks, []) == [Note("a", "blocked, with pending tasks below it: 1")]

    def test_says_nothing_where_nothing_surprises(self) -> None:
        tasks = [PlannedTask("a", "A", status="completed"), PlannedTask("b", "B")]
        assert notes_on_order(tasks, [Dependency("b", "a")]) == []
