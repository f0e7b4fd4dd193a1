"""Each rule of the checker against a history that breaks it, made by hand."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.faults.checker import RULES, check
from tests.faults.history import Exchange, Fault, History, Reply
from tests.faults.world import Outage, Repair, Row, Told, World

CREATE, CLAIM, COMPLETE = "db.tasks.create", "db.tasks.claim", "db.tasks.complete"


def task(id_: str = "t1", *, version: int = 1, **more: Any) -> dict[str, Any]:
    made = {"id": id_, "name": "<1>", "status": "pending", "attempt": 0}
    made |= {"summary": None, "claimed_by": None}
    return {**made, "version": version, **more}


def time(second: int) -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=second)


def at(second: int) -> str:
    """A time as the contract writes it."""
    return time(second).isoformat().replace("+00:00", "Z")


class Story:
    """A history and a world that fit each other, until a test changes one of them."""

    def __init__(self) -> None:
        self.history = History()
        self.outbox: list[Row] = []
        self.stream: list[Told] = []
        self.tasks: dict[str, dict[str, Any]] = {}
        self.rested: float | None = 1.0
        self.repairs: list[Repair] = []
        self.outages: list[Outage] = []

    def asked(
        self, subject: str, value: str, *replies: Reply, key: str | None = None, sent: float = 0.0
    ) -> Exchange:
        number = len(self.history.exchanges) + 1
        body = {"name": value}
        exchange = Exchange(number, "c", subject, body, value, key, sent, replies=list(replies))
        self.history.exchanges.append(exchange)
        return exchange

    def told(
        self,
        kind: str,
        body: dict[str, Any],
        *,
        cause: str | None = None,
        xid: int = 0,
        **more: Any,
    ) -> None:
        """One event, in the outbox and in the stream, and the row as it tells."""
        place = len(self.outbox) + 1
        noun = kind.partition(".")[0]
        id_, data = body["id"], json.dumps({noun: body, **more})
        row = Row(place, xid or place, f"e{place}", kind, id_, data, cause)
        self.outbox.append(row)
        self.stream.append(Told(place, row.event_id, kind, id_, data, place, cause))
        if noun == "task":
            self.tasks[id_] = body
        if kind == "task.deleted":
            del self.tasks[id_]

    def broken(self) -> set[str]:
        world = World(self.tasks, self.outbox, self.stream, self.rested, self.repairs, self.outages)
        return {violation.rule for violation in check(self.history, world)}


def ok(body: Any, *, at: float = 1.0, position: int | None = 1) -> Reply:
    return Reply(at, 200, json.dumps(body), position)


def refused(status: int = 409, *, at: float = 1.0) -> Reply:
    return Reply(at, status, "{}")


@pytest.fixture
def story() -> Story:
    """A task is created, claimed and completed."""
    story = Story()
    story.asked(CREATE, "<1>", ok(task()), key="k1")
    story.told("task.created", task(), cause="k1")
    claimed = task(version=2, status="in_progress", attempt=1, claimed_by="<2>")
    story.asked(CLAIM, "<2>", ok({"tasks": [{"task": claimed}]}, at=3.0, position=2), sent=2.0)
    story.told("task.claimed", claimed)
    done = task(version=3, status="completed", attempt=1, summary="<3>")
    story.asked(COMPLETE, "<3>", ok(done, at=5.0, position=3), key="k3", sent=4.0)
    story.told("task.completed", done, cause="k3")
    return story


def test_a_sound_history_passes(story: Story) -> None:
    assert story.broken() == set()


class TestPresent:
    def test_without_an_effect(self, story: Story) -> None:
        story.asked(CREATE, "<4>", ok(task("t2"), position=4), key="k4")
        assert story.broken() == {"present"}

    def test_with_two_effects(self, story: Story) -> None:
        story.asked(CREATE, "<4>", ok(task("t2"), at=7.0, position=4), key="k4", sent=6.0)
        story.told("task.created", task("t2"), cause="k4")
        story.told("task.created", task("t3"), cause="k4")
        assert story.broken() == {"present"}

    def test_with_another_body(self, story: Story) -> None:
        reply = story.history.exchanges[0].replies[0]
        story.history.exchanges[0].replies[0] = replace(reply, body=json.dumps(task(name="?")))
        assert story.broken() == {"present"}

    def test_with_another_position(self, story: Story) -> None:
        reply = story.history.exchanges[0].replies[0]
        story.history.exchanges[0].replies[0] = replace(reply, position=9)
        assert story.broken() == {"present"}


class TestUnknown:
    def test_once_is_sound(self, story: Story) -> None:
        story.history.exchanges[0].replies.clear()
        story.history.faults.append(Fault("cut", "", 0.0, 1.0, excuses=True))
        assert story.broken() == set()

    def test_twice(self, story: Story) -> None:
        story.asked(CREATE, "<4>", Reply(7.0, 503, "{}"), sent=6.0)
        for id_ in ("t2", "t3"):
            story.told("task.created", task(id_, name="<4>"))
        assert story.broken() == {"at_most_once"}


class TestRefused:
    def test_and_in_the_outbox(self, story: Story) -> None:
        story.asked(CREATE, "<4>", refused(), key="k4")
        story.told("task.created", task("t2", name="<4>"), cause="k4")
        assert story.broken() == {"nowhere"}

    def test_and_in_a_row(self, story: Story) -> None:
        story.asked("db.tasks.update", "<4>", refused(504))
        story.tasks["t1"] = story.tasks["t1"] | {"name": "<4>"}
        assert story.broken() == {"nowhere", "tables"}

    def test_a_late_result_may_stay(self, story: Story) -> None:
        story.asked(COMPLETE, "<4>", refused(), key="k4")
        late = story.tasks["t1"] | {"version": 4, "late_results": ["<4>"]}
        story.told("task.late_completion", late, cause="k4")
        assert story.broken() == set()


class TestStream:
    def test_an_event_is_missing(self, story: Story) -> None:
        del story.stream[2]
        assert story.broken() == {"zombie"}

    def test_an_event_has_no_row(self, story: Story) -> None:
        story.stream.append(Told(4, "e9", "task.created", "t9", story.stream[0].data, 9))
        assert story.broken() == {"ghost"}

    @pytest.mark.parametrize("changed", [{"position": 7}, {"cause": "?"}, {"entity_id": "t9"}])
    def test_an_event_is_not_its_row(self, story: Story, changed: dict[str, Any]) -> None:
        story.stream[0] = replace(story.stream[0], **changed)
        assert "ghost" in story.broken()

    def test_an_event_is_there_twice(self, story: Story) -> None:
        story.stream.append(replace(story.stream[0], sequence=4))
        assert story.broken() == {"once"}

    def test_a_transaction_is_scattered(self, story: Story) -> None:
        story.outbox[0] = replace(story.outbox[0], xid=3)
        assert "together" in story.broken()


class TestMended:
    LOSS = Fault("stream_deleted", "", 5.0, 6.0, excuses=False, loses=True)

    def test_what_was_taken(self, story: Story) -> None:
        story.history.faults.append(self.LOSS)
        story.repairs += [Repair(at, "stream EVENTS has lost 3 events") for at in (5.5, 9.0)]
        assert story.broken() == set()

    @pytest.mark.parametrize("at", [4.0, 60.0])
    def test_what_nobody_took(self, story: Story, at: float) -> None:
        story.history.faults += [self.LOSS, Fault("nats_killed", "", at, at, excuses=True)]
        story.repairs += [Repair(at, "stream EVENTS has lost 3 events") for at in (5.5, at)]
        assert story.broken() == {"mended"}

    def test_what_was_taken_and_not_noticed(self, story: Story) -> None:
        story.history.faults.append(self.LOSS)
        assert story.broken() == {"mended"}


class TestTables:
    def test_a_row_without_event(self, story: Story) -> None:
        story.tasks["t2"] = task("t2")
        assert story.broken() == {"tables"}

    def test_a_row_is_not_as_told(self, story: Story) -> None:
        story.tasks["t1"] = task(version=4)
        assert story.broken() == {"tables"}

    @pytest.mark.parametrize(
        ("changed", "outages", "sound"),
        [
            ({}, [], True),
            ({"lease_expires_at": at(80)}, [(12, 20)], True),
            ({}, [(12, 20)], True),  # a claim that was committed beside the end of the outage
            ({"lease_expires_at": at(120)}, [(12, 20), (50, 60)], True),
            ({"lease_expires_at": at(80)}, [], False),
            ({"lease_expires_at": at(81)}, [(12, 20)], False),
            ({"lease_expires_at": at(69)}, [(5, 9)], False),  # over before the claim
            ({"lease_expires_at": at(150)}, [(71, 90)], False),  # begun when it had run out
            ({"lease_expires_at": None}, [(12, 20)], False),
            ({"lease_expires_at": at(80), "claimed_by": "<9>"}, [(12, 20)], False),
        ],
    )
    def test_a_lease_has_its_full_length_after_an_outage(
        self, story: Story, changed: dict[str, Any], outages: list[tuple[int, int]], sound: bool
    ) -> None:
        lease: dict[str, Any] = {
            "lease_seconds": 60,
            "lease_expires_at": at(70),
            "updated_at": at(10),
        }
        claimed = task("t2", status="in_progress", attempt=1, claimed_by="<5>", **lease)
        story.told("task.created", task("t2"))
        story.told("task.claimed", claimed | {"version": 2})
        story.tasks["t2"] = claimed | {"version": 2} | changed
        story.outages = [Outage(time(began), time(ended)) for began, ended in outages]
        assert story.broken() == (set() if sound else {"tables"})

    def test_a_row_is_gone(self, story: Story) -> None:
        del story.tasks["t1"]
        assert story.broken() == {"tables"}

    def test_a_row_was_deleted_and_is_there(self, story: Story) -> None:
        story.told("task.deleted", task(version=4))
        story.tasks["t1"] = task(version=4)
        assert story.broken() == {"tables"}


class TestOrder:
    def test_versions_out_of_order(self, story: Story) -> None:
        first, second = story.stream[:2]
        story.stream[:2] = [replace(first, sequence=2), replace(second, sequence=1)]
        assert {"order", "causes"} <= story.broken()

    def test_a_gap_in_the_versions(self, story: Story) -> None:
        story.told("task.updated", story.tasks["t1"] | {"version": 5})
        assert story.broken() == {"order"}

    def test_an_effect_before_its_cause(self, story: Story) -> None:
        story.asked(CREATE, "<4>", ok(task("t2"), at=7.0, position=4), key="k4", sent=6.0)
        story.told("task.created", task("t2"), cause="k4")
        story.stream[3] = replace(story.stream[3], sequence=0)
        assert story.broken() == {"causes"}

    def test_a_claim_before_what_it_waits_for(self, story: Story) -> None:
        story.told("task.created", task("t2"), depends_on=["t9"])
        story.told("task.claimed", task("t2", version=2, status="in_progress", attempt=1))
        assert story.broken() == {"dependencies"}


class TestLeases:
    def test_one_attempt_for_two(self, story: Story) -> None:
        claimed = json.loads(story.history.exchanges[1].replies[0].body)
        story.asked(CLAIM, "<4>", ok(claimed, position=None))
        assert "leases" in story.broken()

    def test_claimed_while_in_progress(self, story: Story) -> None:
        story.told("task.created", task("t2"))
        for version in (2, 3):
            now = task("t2", version=version, status="in_progress", attempt=version - 1)
            story.told("task.claimed", now)
        assert story.broken() == {"leases"}

    def test_an_attempt_that_was_there_before(self, story: Story) -> None:
        story.told("task.created", task("t2"))
        story.told("task.claimed", task("t2", version=2, status="in_progress", attempt=2))
        assert story.broken() == {"leases"}

    def test_completed_twice(self, story: Story) -> None:
        story.told("task.completed", story.tasks["t1"] | {"version": 4})
        assert story.broken() == {"leases"}


class TestAnswers:
    def test_none(self, story: Story) -> None:
        story.asked("db.tasks.get", "")
        assert story.broken() == {"answered"}

    def test_none_and_a_reason(self, story: Story) -> None:
        story.asked("db.tasks.get", "", sent=5.0).gave_up = 9.0
        story.history.faults.append(Fault("handler_killed", "", 6.0, 7.0, excuses=True))
        assert story.broken() == set()

    @pytest.mark.parametrize(
        "fault",
        [
            Fault("too early", "", 1.0, 2.0, excuses=True),
            Fault("too late", "", 50.0, 51.0, excuses=True),
            Fault("no reason", "", 6.0, 7.0, excuses=False),
        ],
        ids=lambda fault: fault.name,
    )
    def test_none_and_no_reason(self, story: Story, fault: Fault) -> None:
        story.asked("db.tasks.get", "", sent=5.0).gave_up = 9.0
        story.history.faults.append(fault)
        assert story.broken() == {"answered"}

    def test_two(self, story: Story) -> None:
        story.asked("db.tasks.get", "", ok({}), ok({}))
        assert story.broken() == {"answered"}

    def test_an_internal_error(self, story: Story) -> None:
        story.asked("db.tasks.get", "", refused(500))
        assert story.broken() == {"no_bug"}


class TestIdempotency:
    def test_another_reply(self, story: Story) -> None:
        story.asked(CREATE, "<1>", ok(task(name="?")), key="k1")
        assert story.broken() == {"same_reply"}

    def test_refused_after_success(self, story: Story) -> None:
        story.asked(CREATE, "<1>", refused(at=9.0), key="k1", sent=8.0)
        assert story.broken() == {"same_reply"}


def test_no_rest(story: Story) -> None:
    story.rested = None
    assert story.broken() == {"at_rest"}


def agent(*, version: int = 1, **more: Any) -> dict[str, Any]:
    return {"id": "a1", "name": "<9>", "incarnation": 1, "version": version, **more}


class TestCrashes:
    @pytest.fixture
    def story(self, story: Story) -> Story:
        story.told("agent.registered", agent())
        story.told("agent.crashed", agent(version=2), cause="sweeper:leases")
        story.told("agent.resumed", agent(version=3, incarnation=2))
        story.told("agent.crashed", agent(version=4, incarnation=2), cause="sweeper:leases")
        return story

    def test_once_for_each_incarnation(self, story: Story) -> None:
        assert story.broken() == set()

    def test_twice(self, story: Story) -> None:
        story.told("agent.crashed", agent(version=5, incarnation=2), cause="sweeper:leases")
        assert story.broken() == {"crashes"}

    def test_never(self, story: Story) -> None:
        story.told("agent.resumed", agent(version=5, incarnation=3))
        assert story.broken() == {"crashes"}


def test_every_rule_is_broken_here() -> None:
    """A rule without a history that breaks it would be believed without reason."""
    source = Path(__file__).read_text()
    rules = {rule.__name__ for rules in RULES.values() for rule in rules}
    assert {rule for rule in rules if f'"{rule}"' not in source} == set()
