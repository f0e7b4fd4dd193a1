from uuid import UUID

import pytest

from fleetbus.demo.verify_agents import verify_agents
from tests.fleetbus.demo.story import Story

ONCE = "every agent that was killed or frozen has one crash event"
TOLD = "each crash event names all tasks that the agent had"
DONE = "the tasks of a crashed agent were done by another attempt"
ENDED = "every agent has ended, and the service knows it"


@pytest.fixture
def story() -> Story:
    """One of two agents is killed with a task; the other one does it and ends."""
    story = Story()
    story.register("killed", "sound")
    story.create("a", "b")
    story.claim("a", by="killed")
    story.complete("a")
    story.claim("b", by="killed")
    story.crash("killed", "b")
    story.retry("b")
    story.claim("b", by="sound")
    story.complete("b")
    story.stop("sound")
    return story


def broken(story: Story, *hurt: str) -> dict[str, tuple[str, ...]]:
    ids: set[UUID] = {story.entities[name].id for name in hurt}
    checks = verify_agents(story.history, story.stored, ids)
    return {check.promise: check.violations for check in checks if not check.kept}


class TestGoodHistory:
    def test_keeps_every_promise(self, story: Story) -> None:
        assert broken(story, "killed") == {}
        assert story.broken() == {}
        counts = [check.count for check in verify_agents(story.history, story.stored, set())]
        assert counts == [1, 1, 1, 2]

    def test_one_may_crash_again_as_another_incarnation(self, story: Story) -> None:
        story.crash("killed", incarnation=2)
        assert broken(story, "killed") == {}


class TestBadHistory:
    def test_a_crash_that_is_told_twice(self, story: Story) -> None:
        story.crash("killed")
        id_ = story.entities["killed"].id
        assert broken(story, "killed") == {
            ONCE: (f"agent {id_} has 2 events of a crash in incarnation 1",)
        }

    def test_a_crash_that_is_not_told(self, story: Story) -> None:
        id_ = story.entities["sound"].id
        assert broken(story, "killed", "sound") == {
            ONCE: (f"agent {id_} was hurt and has no event of a crash",)
        }

    def test_a_crash_of_one_that_was_not_hurt(self, story: Story) -> None:
        id_ = story.entities["killed"].id
        assert broken(story) == {ONCE: (f"agent {id_} has an event of a crash and was not hurt",)}

    def test_a_crash_that_leaves_a_task_out(self, story: Story) -> None:
        story.create("c")
        story.claim("c", by="sound")
        story.crash("sound")
        id_ = story.entities["c"].id
        assert broken(story, "killed", "sound") == {
            TOLD: (f"sound crashed and its event lacks task {id_}",)
        }

    def test_a_crash_with_a_task_that_it_did_not_have(self, story: Story) -> None:
        story.crash("sound", "a")
        id_ = story.entities["a"].id
        assert broken(story, "killed", "sound")[TOLD] == (f"sound crashed without task {id_}",)

    def test_a_task_that_nobody_did(self, story: Story) -> None:
        story.create("c")
        story.claim("c", by="sound")
        story.crash("sound", "c")
        story.retry("c")
        id_ = story.entities["c"].id
        assert broken(story, "killed", "sound") == {
            DONE: (f"task {id_} of sound was not done by another attempt: it is pending",)
        }

    def test_a_task_that_was_completed_without_another_claim(self, story: Story) -> None:
        story.create("c")
        story.claim("c", by="sound")
        story.crash("sound", "c")
        story.complete("c")
        assert DONE in broken(story, "killed", "sound")

    def test_an_agent_that_is_left(self, story: Story) -> None:
        story.register("left")
        assert broken(story, "killed") == {ENDED: ("left is idle",)}
