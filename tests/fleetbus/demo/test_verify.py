from dataclasses import replace
from typing import Any

import pytest

from fleetbus.demo.verify import verify
from tests.fleetbus.demo.story import NOW, Story, new_task

ONCE = "every event is in the stream once"
GAPLESS = "the versions of every entity are in the stream without a gap"
DONE_ONCE = "every task was held by one attempt at a time and completed once"
IN_ORDER = "no task was begun before those that it depends on were completed"
AS_STORED = "events and tables agree"
NOTHING_LEFT = "everything that can be finished is finished"


@pytest.fixture
def story() -> Story:
    """Two tasks, the second of which waits for the first; both done."""
    story = Story()
    story.create("a", "b")
    story.do("a")
    story.ready("b")
    story.do("b")
    return story


class TestGoodHistory:
    def test_keeps_every_promise(self, story: Story) -> None:
        assert story.broken(("b", "a")) == {}
        assert [check.count for check in story.check(("b", "a"))] == [7, 2, 2, 1, 2, 2]

    def test_blocked_tasks_hold_up_what_waits_for_them(self) -> None:
        story = Story()
        story.create("blocked", status="blocked")
        story.create("waits", "waits too")
        assert story.broken(("waits", "blocked"), ("waits too", "waits")) == {}

    def test_what_is_below_a_blocked_task_is_held_up_too(self) -> None:
        story = Story()
        story.create("blocked", status="blocked")
        story.create("child", parent_task_id=story.entities["blocked"].id)
        story.create("grandchild", parent_task_id=story.entities["child"].id)
        assert story.broken() == {}

    def test_what_was_imported_as_completed_needs_no_claim(self) -> None:
        story = Story()
        story.create("done", status="completed")
        story.create("next")
        story.do("next")
        assert story.broken(("next", "done")) == {}

    def test_a_renewed_lease_is_no_difference(self, story: Story) -> None:
        stored: list[Any] = story.stored
        stored[0] = stored[0].model_copy(update={"lease_expires_at": NOW})
        assert all(check.kept for check in verify(story.history, stored, []))

    def test_a_deleted_task_is_not_stored(self, story: Story) -> None:
        story.delete("b")
        stored = [story.entities["a"]]
        assert all(check.kept for check in verify(story.history, stored, [("b", "a")]))

    def test_phases_end_with_their_last_task(self) -> None:
        story = Story()
        phase = story.open_phase("p")
        story.create("a", phase_id=phase.id)
        story.do("a")
        story.complete_phase("p")
        assert story.broken() == {}


class TestEvents:
    def test_one_told_twice(self, story: Story) -> None:
        story.history.append(story.history[-1])
        twice = story.history[-1].id
        assert story.broken()[ONCE] == (f"event {twice} is there 2 times",)

    @pytest.mark.parametrize("lost", [0, 1, 2, 3, 5, 6])
    def test_any_change_lost(self, story: Story, lost: int) -> None:
        del story.history[lost]
        assert story.broken()

    def test_the_creation_lost(self, story: Story) -> None:
        del story.history[1]
        assert story.broken() == {GAPLESS: ("task b begins with task.ready",)}

    def test_the_last_one_lost(self, story: Story) -> None:
        del story.history[-1]
        assert story.broken()[AS_STORED] == (
            "task b differs in status, version between event and table",
        )

    def test_versions_out_of_order(self, story: Story) -> None:
        story.history[2:4] = story.history[3:1:-1]
        assert story.broken()[GAPLESS] == (
            "task a goes from version 1 to 3",
            "task a goes from version 3 to 2",
        )

    def test_a_change_without_a_version(self, story: Story) -> None:
        changed = story.entities["b"].model_copy(update={"summary": "another"})
        event = story.history[-1].event.model_copy(update={"task": changed})
        story.history.append(replace(story.history[-1], id="another", event=event))
        assert story.broken()[GAPLESS] == ("task b changed summary within version 3",)


class TestTasks:
    def test_completed_twice(self, story: Story) -> None:
        story.complete("a")
        assert story.broken()[DONE_ONCE] == (
            "task a: task.claimed, task.completed, task.completed",
        )

    def test_claimed_twice(self, story: Story) -> None:
        story.create("c")
        story.claim("c")
        story.do("c")
        assert story.broken()[DONE_ONCE] == ("task c: task.claimed, task.claimed, task.completed",)

    def test_claimed_again_after_it_was_taken_back(self, story: Story) -> None:
        story.create("c")
        story.claim("c")
        story.retry("c")
        story.do("c")
        assert story.broken() == {}

    def test_taken_back_and_completed_all_the_same(self, story: Story) -> None:
        story.create("c")
        story.claim("c")
        story.retry("c")
        story.complete("c")
        assert story.broken()[DONE_ONCE] == ("task c: task.claimed, task.retried, task.completed",)

    def test_claimed_after_its_completion(self, story: Story) -> None:
        story.claim("a")
        story.retry("a")
        assert story.broken()[DONE_ONCE] == (
            "task a: task.claimed, task.completed, task.claimed, task.retried",
        )

    def test_completed_without_a_claim(self, story: Story) -> None:
        story.create("c")
        story.complete("c")
        assert story.broken()[DONE_ONCE] == ("task c: task.completed",)

    def test_completed_by_another_attempt(self, story: Story) -> None:
        story.create("c")
        story.claim("c")
        story.complete("c", attempt=2)
        assert story.broken()[DONE_ONCE] == (
            "task c was completed by another attempt than claimed it",
        )

    def test_claimed_and_never_completed(self, story: Story) -> None:
        story.create("c")
        story.claim("c")
        broken = story.broken()
        assert broken[DONE_ONCE] == ("task c: task.claimed",)
        assert broken[NOTHING_LEFT] == ("task c is in_progress and nothing holds it up",)

    def test_begun_before_what_it_depends_on(self, story: Story) -> None:
        assert story.broken(("a", "b")) == {
            IN_ORDER: ("task a was claimed before b was completed",)
        }

    def test_begun_while_what_it_depends_on_is_in_progress(self) -> None:
        story = Story()
        story.create("a", "b")
        story.claim("a")
        story.claim("b")
        story.complete("a")
        story.complete("b")
        assert story.broken(("b", "a")) == {
            IN_ORDER: ("task b was claimed before a was completed",)
        }

    def test_left_though_nothing_holds_it_up(self, story: Story) -> None:
        story.create("c")
        assert story.broken() == {NOTHING_LEFT: ("task c is pending and nothing holds it up",)}


class TestTables:
    def test_a_row_that_was_never_told(self, story: Story) -> None:
        stored = [*story.stored, new_task("c", status="blocked")]
        broken = [check for check in verify(story.history, stored, []) if not check.kept]
        assert [check.violations for check in broken] == [("task c has no event",)]

    def test_a_told_one_that_is_not_there(self, story: Story) -> None:
        broken = [check for check in verify(story.history, story.stored[:1], []) if not check.kept]
        assert [check.violations for check in broken] == [("task b has events and is not there",)]

    def test_one_that_was_told_to_be_deleted(self, story: Story) -> None:
        story.delete("b")
        assert story.broken()[AS_STORED] == ("task b is deleted by its event and is there",)

    def test_another_content(self, story: Story) -> None:
        story.entities["a"] = story.entities["a"].model_copy(update={"summary": "another"})
        assert story.broken() == {
            AS_STORED: ("task a differs in summary between event and table",),
        }


class TestPhases:
    def test_not_ended_with_its_last_task(self) -> None:
        story = Story()
        phase = story.open_phase("p")
        story.create("a", phase_id=phase.id)
        story.do("a")
        assert story.broken() == {
            NOTHING_LEFT: ("phase p is in progress and all its tasks are completed",)
        }

    def test_not_begun_though_nothing_holds_it_up(self) -> None:
        story = Story()
        story.open_phase("before", status="completed")
        story.create("a", phase_id=story.open_phase("p", status="approved").id)
        assert story.broken(("p", "before")) == {
            NOTHING_LEFT: ("phase p is approved and nothing holds it up",)
        }

    def test_not_begun_while_another_is_open(self) -> None:
        story = Story()
        story.create("blocked", status="blocked", phase_id=story.open_phase("before").id)
        story.create("a", phase_id=story.open_phase("p", status="approved").id)
        assert story.broken(("p", "before")) == {}
