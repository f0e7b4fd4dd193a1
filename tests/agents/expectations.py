"""What is asked of any history of one agent and its tasks, after each step."""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis.stateful import RuleBasedStateMachine, invariant

from bus.contract.event import Event
from bus.contract.refusals import Refusal
from bus.handling import Decision
from bus.kit.ids import uuid7
from contracts.agents.agents import (
    Agent,
    AgentCrashed,
    AgentFinished,
    AgentStopped,
)
from contracts.planning.tasks import (
    NewTask,
    Task,
    TaskBlocked,
    TaskReleased,
    TaskRetried,
)
from handlers.agents._agent_departures import Departure
from handlers.agents._agent_rules import (
    LIVE,
    require_live,
)
from handlers.agents.states import AGENT
from handlers.planning.task_rules import MAX_RETRIES, new_task
from persistence.agents.agent_tasks import LockedAgents

ENDS = (AgentFinished, AgentStopped, AgentCrashed)
GIVEN_BACK = (TaskReleased, TaskRetried, TaskBlocked)

Decide = Callable[[], Decision[Agent]]


class Expectations(RuleBasedStateMachine):
    """After each step the same things are asked, whatever the step was."""

    now: datetime
    agent: Agent
    tasks: list[Task]
    processes: int
    cancel_requested: bool
    answers: Any
    resuming: bool
    crashes: Counter[int]
    given_back: Counter[tuple[UUID, int]]
    claims: set[tuple[UUID, int]]

    def speak(
        self, incarnation: int | None, action: str, decide: Decide, *told: type[Event]
    ) -> None:
        """What only the process that is the agent now may say."""
        before = self.agent
        self.step(action, decide, *told)
        if incarnation not in {None, self.processes}:
            assert self.agent is before

    def depart(
        self, incarnation: int | None, action: str, decide: Callable[[LockedAgents], Departure]
    ) -> None:
        held, made = self._held(), []

        def decide_agent() -> Decision[Agent]:
            made.append(decide(held))
            return made[0].agent

        self.speak(incarnation, action, decide_agent, *ENDS)
        for departure in made:
            self._tasks_are_given_back(held, departure)

    def step(self, action: str | None, decide: Decide, *told: type[Event]) -> None:
        """One decision. Refused or needless it changes nothing; else it is told, one version on."""
        self._pass(timedelta(microseconds=1))
        before, as_it_was = self.agent, self.agent.model_dump_json()
        try:
            decision = decide()
        except Refusal:
            assert self.agent is before
            assert before.model_dump_json() == as_it_was
            return
        after = decision.entity
        assert decision.changed == (after is not before)
        if not decision.changed:
            assert not decision.events
            return
        assert before.model_dump_json() == as_it_was
        [event] = decision.events
        assert isinstance(event, told)
        assert getattr(event, "agent", None) is after
        assert (after.version, after.updated_at) == (before.version + 1, self.now)
        if action is None:
            assert after.status == before.status
        else:
            assert (before.status, action, after.status) in AGENT.edges()
        if isinstance(event, AgentCrashed):
            self.crashes[after.incarnation] += 1
        if before.lease_expires_at is None and after.lease_expires_at is not None:
            self._another_run_begins(after)
        if after.lease_expires_at is None:
            self.cancel_requested = False
        self.agent = after

    @invariant()
    def it_is_whole(self) -> None:
        agent = self.agent
        assert Agent.model_validate_json(agent.model_dump_json()) == agent
        assert agent.incarnation == self.processes

    @invariant()
    def its_crash_is_told_once_per_incarnation(self) -> None:
        assert set(self.crashes.values()) <= {1}
        assert set(self.crashes) <= set(range(1, self.processes + 1))
        assert (self.agent.status != "crashed") or self.crashes[self.processes] == 1

    @invariant()
    def what_is_expected_of_it(self) -> None:
        agent = self.agent
        if agent.status in {"running", "waiting_for_input"}:
            assert agent.lease_expires_at is not None
            assert agent.dismissed_at is None
            assert agent.exit_code is None
        if agent.status not in LIVE:
            assert agent.lease_expires_at is None
        if agent.lease_expires_at is None:
            assert (agent.suspected_at, agent.stalled_at) == (None, None)
        assert agent.stalled_at is None or agent.status == "running"
        assert agent.status != "waiting_for_input" or agent.pending_questions

    @invariant()
    def what_is_asked_of_a_run_ends_with_it(self) -> None:
        assert (self.agent.cancel_requested_at is not None) == self.cancel_requested

    @invariant()
    def its_tasks_are_given_back_once(self) -> None:
        held = {(task.id, task.attempt) for task in self._held().tasks}
        assert set(self.given_back.values()) <= {1}
        assert set(self.given_back) == self.claims - held
        assert not held or self.agent.status in LIVE

    def _another_run_begins(self, after: Agent) -> None:
        """Of the run before nothing is left, but what the agent is asked to go on with."""
        assert (after.result, after.pending_questions, after.progress) == (None, None, None)
        assert (after.exit_code, after.cancel_requested_at) == (None, None)
        assert after.answers == (self.answers if self.resuming else None)

    def _may(self, incarnation: int | None, action: str) -> bool:
        """Whether this process may act in the agent's name, which is asked of the service, too."""
        may = self.agent.status in LIVE and incarnation in {None, self.processes}
        try:
            require_live(self.agent, incarnation, action)
        except Refusal:
            assert not may
        else:
            assert may
        return may

    def _tasks_are_given_back(self, held: LockedAgents, departure: Departure) -> None:
        after = {decision.entity.id: decision for decision in departure.tasks}
        assert list(after) == [task.id for task in held.tasks]
        for before in held.tasks:
            decision = after[before.id]
            [event] = decision.events
            assert isinstance(event, GIVEN_BACK)
            self.given_back[before.id, before.attempt] += 1
            self._is_free(before, decision.entity, crashed=self.agent.status == "crashed")
        [told] = departure.agent.events
        self.tasks = [after[one.id].entity if one.id in after else one for one in self.tasks]
        if isinstance(told, AgentCrashed):
            assert [(one.id, one.retry_count) for one in told.tasks] == [
                (one.entity.id, one.entity.retry_count) for one in departure.tasks
            ]

    def _is_free(self, before: Task, after: Task, *, crashed: bool) -> None:
        blocked = crashed and before.retry_count == MAX_RETRIES
        assert after.status == ("blocked" if blocked else "pending")
        assert (after.claimed_by, after.lease_expires_at) == (None, None)
        assert after.retry_count == before.retry_count + (crashed and not blocked)
        assert after.version == before.version + 1

    def _held(self) -> LockedAgents:
        return LockedAgents(
            [self.agent], [one for one in self.tasks if one.status == "in_progress"]
        )

    def _new_task(self, retry_count: int) -> Task:
        """A task that was lost so often before."""
        made = new_task(NewTask(name="a task"), None, None, None, id_=uuid7(), now=self.now)
        return made.evolve(self.now, retry_count=retry_count)

    def _is_over(self) -> bool:
        lease = self.agent.lease_expires_at
        return lease is not None and lease < self.now

    def _pass(self, by: timedelta) -> None:
        self.now += by

    def _types(self, events: Sequence[Event]) -> list[type[Event]]:
        return [type(event) for event in events]
