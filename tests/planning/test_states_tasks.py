"""Histories of one task through the pure deciders."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bus.contract.refusals import Refusal
from bus.handling import Decision
from bus.kit.ids import uuid7
from contracts.planning.tasks import (
    AcceptLateResult,
    BlockTask,
    ClaimTasks,
    CompleteTask,
    NewTask,
    ReleaseTask,
    RenewTask,
    RetryTask,
    Task,
    TaskLateCompletion,
    UpdateTask,
)
from handlers.planning import tasks
from handlers.planning._task_leases import expire_lease
from handlers.planning.states import TASK
from handlers.planning.task_claims import claim_task
from handlers.planning.task_rules import MAX_RETRIES, lose_agent, new_task

ATTEMPTS = st.integers(0, 6)
WORDS = st.text("ab", max_size=2)
RESULTS = st.none() | st.booleans() | st.integers(0, 2) | WORDS


class Histories(RuleBasedStateMachine):
    task: Task

    @initialize(status=st.sampled_from(TASK.initial))
    def created(self, status: Any) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.brought: list[Any] = []
        self.accepted = False
        given = NewTask.model_construct(
            name="a task",
            status=status,
            blocked_reason="why" if status == "blocked" else None,
        )
        self.task = new_task(given, None, None, None, id_=uuid7(), now=self.now)

    @rule(lease_seconds=st.integers(1, 100))
    def claim(self, lease_seconds: int) -> None:
        command = ClaimTasks(agent_id="agent", lease_seconds=lease_seconds)
        before = self.task
        self.step("claim", lambda: Decision(claim_task(self.task, command, self.now)), events=0)
        if self.task is not before:
            assert self.task.attempt == before.attempt + 1

    @rule(attempt=ATTEMPTS | st.none(), summary=WORDS, result=RESULTS)
    def complete(self, attempt: int | None, summary: str, result: Any) -> None:
        command = CompleteTask(id=self.task.id, attempt=attempt, summary=summary, result=result)
        existed = attempt is not None and 1 <= attempt <= self.task.attempt
        if existed or self.task.status == "in_progress":
            who = self.task.attempt if attempt is None else attempt
            if who in range(1, self.task.attempt + 1):
                self.brought.append((who, summary, repr(result)))
        self.step("complete", lambda: tasks.complete_task(command, self.task, now=self.now))

    @rule(attempt=ATTEMPTS | st.none())
    def block(self, attempt: int | None) -> None:
        command = BlockTask(id=self.task.id, attempt=attempt, reason="why")
        self.step("block", lambda: tasks.block_task(command, self.task, now=self.now))

    @rule(attempt=ATTEMPTS)
    def release(self, attempt: int) -> None:
        command = ReleaseTask(id=self.task.id, attempt=attempt, reason="why")
        self.step("release", lambda: tasks.release_task(command, self.task, now=self.now))

    @rule(attempt=ATTEMPTS)
    def renew(self, attempt: int) -> None:
        command = RenewTask(id=self.task.id, attempt=attempt)
        before = self.task
        try:
            decision = tasks.renew_task(command, self.task, now=self.now)
        except Refusal:
            return
        self.task = decision.entity
        assert not decision.events
        lease = {name: getattr(before, name) for name in ("lease_expires_at", "lease_seconds")}
        assert self.task.model_copy(update=lease) == before

    @rule()
    def expire(self) -> None:
        before = self.task
        self.step("expire", lambda: expire_lease(self.task, now=self.now), events=None)
        if self.task is not before:
            assert (self.task.status == "blocked") == (before.retry_count == MAX_RETRIES)

    @rule()
    def lose_agent(self) -> None:
        before = self.task
        self.step("lose_agent", lambda: lose_agent(self.task, now=self.now))
        if self.task is not before:
            assert (self.task.status == "blocked") == (before.retry_count == MAX_RETRIES)

    @rule()
    def retry(self) -> None:
        command = RetryTask(id=self.task.id)
        self.step("retry", lambda: tasks.retry_task(command, self.task, now=self.now))

    @rule(attempt=ATTEMPTS)
    def accept_late(self, attempt: int) -> None:
        command = AcceptLateResult(id=self.task.id, attempt=attempt)
        before = self.task
        self.step("accept_late", lambda: tasks.accept_late_result(command, self.task, now=self.now))
        if self.task is not before and before.status == "completed":
            replaced = (before.attempt, before.summary, repr(before.result))
            self.brought = [one for one in self.brought if one[1:] != replaced[1:]]

    @rule(priority=st.sampled_from(["low", "medium", "high"]))
    def update(self, priority: Any) -> None:
        command = UpdateTask(id=self.task.id, priority=priority)
        decision = tasks.update_task(command, self.task, None, now=self.now)
        assert (decision.entity is self.task) == (priority == self.task.priority)
        assert len(decision.events) == (decision.entity is not self.task)
        self.task = decision.entity

    def step(self, action: str, decide: Any, events: int | None = 1) -> None:
        self.now += timedelta(seconds=1)
        before = self.task
        try:
            decision: Decision[Task] = decide()
        except Refusal:
            assert self.task == before
            return
        after = decision.entity
        if after is before:
            assert decision.refusal is not None
            assert not decision.events
            return
        if decision.refusal is not None:
            (event,) = decision.events
            assert isinstance(event, TaskLateCompletion)
            assert after.status == before.status
            assert len(after.late_results) == len(before.late_results) + 1
        elif action == "expire" and after.status == "blocked":
            assert (before.status, "expire", "pending") in TASK.edges()
            assert ("pending", "block", "blocked") in TASK.edges()
        else:
            assert (before.status, action, after.status) in TASK.edges()
            assert events is None or len(decision.events) == events
        steps = 2 if action == "expire" and after.status == "blocked" else 1
        assert after.version == before.version + steps
        assert after.updated_at == self.now
        assert after.attempt >= before.attempt
        self.task = after

    @invariant()
    def it_is_whole(self) -> None:
        if not hasattr(self, "task"):
            return
        task = self.task
        assert Task.model_validate_json(task.model_dump_json()) == task
        assert (task.status == "in_progress") == (task.claimed_by is not None)
        assert (task.status == "in_progress") == (task.lease_expires_at is not None)
        assert (task.status == "blocked") == (task.blocked_reason is not None)
        assert task.retry_count <= MAX_RETRIES

    @invariant()
    def no_work_is_lost(self) -> None:
        if not hasattr(self, "task"):
            return
        here = {(self.task.summary, repr(self.task.result))}
        here |= {(late.summary, repr(late.result)) for late in self.task.late_results}
        assert {one[1:] for one in self.brought} <= here


TestHistories = Histories.TestCase
