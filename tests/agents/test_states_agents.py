"""Histories of one agent and its tasks through the pure deciders."""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from contracts._declare import Event
from contracts._errors import Refusal
from contracts.agents.agents import (
    Agent,
    AgentAccountSwitched,
    AgentCancelRequested,
    AgentCrashed,
    AgentDismissed,
    AgentFinished,
    AgentReconnected,
    AgentResumed,
    AgentRunning,
    AgentStalled,
    AgentStopped,
    AgentSuspected,
    AgentUpdated,
    AgentWaiting,
    AskInput,
    ConfirmSuspicion,
    CrashAgent,
    DismissAgent,
    FinishAgent,
    Heartbeat,
    HeartbeatReply,
    RegisterAgent,
    RequestAgentCancel,
    ResumeAgent,
    StopAgent,
    UpdateAgent,
)
from contracts.agents.log_chunks import AppendLogChunk
from contracts.planning.tasks import (
    ClaimTasks,
    NewTask,
    Task,
    TaskBlocked,
    TaskReleased,
    TaskRetried,
)
from fleetbus.ids import uuid7
from handlers._shapes import Decision
from handlers.agents import agents
from handlers.agents._account_switching import switched
from handlers.agents._agent_rules import (
    LIVE,
    new_agent,
    require_live,
    start_work,
)
from handlers.agents._claims import take_up
from handlers.agents._crashes import confirm, expire, report
from handlers.agents._departures import Departure
from handlers.agents._endings import finish, stop
from handlers.agents._liveness import IN_FLIGHT, reinstate, suspect
from handlers.agents._progress import stall
from handlers.agents._states import AGENT
from handlers.agents.log_chunks import append_log_chunk
from handlers.planning._claims import claimed
from handlers.planning._task_rules import MAX_RETRIES, new_task
from persistence._pulse import LEASE_HEARTBEATS
from persistence.agents._held import Held
from tests.agents.making import QUESTIONS

PAUSES = st.sampled_from([0.0001, 0.2, 0.6, 5, 29, 31, 400])
INCARNATIONS = st.none() | st.integers(1, 3)
TASKS = 3

ENDS = (AgentFinished, AgentStopped, AgentCrashed)
GIVEN_BACK = (TaskReleased, TaskRetried, TaskBlocked)

Decide = Callable[[], Decision[Agent]]


class Histories(RuleBasedStateMachine):
    """After each step the same things are asked, whatever the step was."""

    @initialize(
        interval=st.sampled_from([1, 10, 60]),
        with_task=st.booleans(),
        retries=st.lists(st.integers(0, MAX_RETRIES), min_size=TASKS, max_size=TASKS),
    )
    def registered(self, interval: int, with_task: bool, retries: list[int]) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        command = RegisterAgent(heartbeat_interval_s=interval)
        self.agent = new_agent(command, name="otter", id_=uuid7(), now=self.now)
        self.tasks = [self._new_task(count) for count in retries]
        self.processes = 1
        self.cancel_requested = False
        self.answers: Any = None
        self.resuming = False
        self.suspicions: list[datetime] = []
        self.crashes: Counter[int] = Counter()
        self.given_back: Counter[tuple[UUID, int]] = Counter()
        self.claims: set[tuple[UUID, int]] = set()
        if with_task:
            self.agent = start_work(self.agent, uuid7(), self.now)

    @rule(number=st.integers(0, TASKS - 1), incarnation=INCARNATIONS)
    def claim(self, number: int, incarnation: int | None) -> None:
        task, before = self.tasks[number], self.agent
        if task.status != "pending" or not self._may(incarnation, "claim"):
            return
        mine = ClaimTasks(agent_id=str(self.agent.id))
        self.tasks[number] = task = claimed(task, mine, self.now)
        self.claims.add((task.id, task.attempt))
        if before.status not in {"idle", "running"}:
            assert take_up(before, task.id, self.now) is None
            return
        begins = before.status == "idle"
        self.step(
            "begin" if begins else None,
            lambda: take_up(self.agent, task.id, self.now) or Decision(self.agent),
            AgentRunning if begins else AgentUpdated,
        )
        assert (self.agent.status, self.agent.task_id) == ("running", task.id)

    @rule(incarnation=INCARNATIONS)
    def ask(self, incarnation: int | None) -> None:
        command = AskInput(id=self.agent.id, incarnation=incarnation, questions=QUESTIONS)
        self.speak(
            incarnation,
            "ask",
            lambda: agents.ask_input(command, self.agent, now=self.now),
            AgentWaiting,
        )

    @rule(answers=st.none() | st.just({"Which database?": "Postgres"}), pid=st.none() | st.just(7))
    def resume(self, answers: Any, pid: int | None) -> None:
        command = ResumeAgent(id=self.agent.id, answers=answers, pid=pid)
        before, self.answers, self.resuming = self.agent, answers, True
        self.step(
            "resume", lambda: agents.resume_agent(command, self.agent, now=self.now), AgentResumed
        )
        self.resuming = False
        if self.agent is before:
            return
        assert self.agent.answers == answers
        self.processes += before.status in {"stopped", "crashed"}
        asked = before.status == "waiting_for_input"
        assert (self.agent.lease_expires_at == before.lease_expires_at) or not asked

    @rule(incarnation=INCARNATIONS)
    def finish(self, incarnation: int | None) -> None:
        command = FinishAgent(id=self.agent.id, incarnation=incarnation, result={"merged": True})
        self.depart(incarnation, "finish", lambda held: finish(command, held, self.now))

    @rule(incarnation=INCARNATIONS)
    def stop(self, incarnation: int | None) -> None:
        command = StopAgent(id=self.agent.id, incarnation=incarnation, reason="error", exit_code=1)
        self.depart(incarnation, "stop", lambda held: stop(command, held, self.now))

    @rule(incarnation=INCARNATIONS)
    def crash(self, incarnation: int | None) -> None:
        command = CrashAgent(id=self.agent.id, incarnation=incarnation, reason="why", exit_code=-9)
        self.depart(incarnation, "crash", lambda held: report(command, held, self.now))

    @precondition(lambda self: self._is_over())
    @rule()
    def expire(self) -> None:
        def decide(held: Held) -> Departure:
            [departure] = expire(held, self.now)
            return departure

        self.depart(None, "crash", decide)
        assert self.agent.status == "crashed"

    @precondition(lambda self: self.agent.lease_expires_at is not None)
    @rule()
    def suspect(self) -> None:
        before = self.agent
        self.step(None, lambda: suspect(self.agent, self.now), AgentSuspected)
        assert (self.agent is before) == (before.suspected_at is not None)
        if self.agent is not before:
            self.suspicions.append(self.now)

    @precondition(lambda self: self.agent.lease_expires_at is not None)
    @rule()
    def reinstate(self) -> None:
        before = self.agent
        self.step(None, lambda: reinstate(self.agent, self.now), AgentReconnected)
        assert (self.agent is before) == (before.suspected_at is None)
        assert self.agent.suspected_at is None

    @precondition(lambda self: self.suspicions)
    @rule(data=st.data())
    def confirm(self, data: st.DataObject) -> None:
        which = data.draw(st.sampled_from(self.suspicions))
        before = self.agent
        command = ConfirmSuspicion(id=self.agent.id, suspected_at=which)
        if before.suspected_at != which:
            assert confirm(command, self._held(), self.now) is None
            return

        def decide(held: Held) -> Departure:
            departure = confirm(command, held, self.now)
            assert departure is not None
            return departure

        self.depart(None, "crash", decide)
        assert self.agent.status == "crashed"

    @rule(incarnation=st.integers(1, 3), progress=st.none() | st.just({"step": "tests"}))
    def heartbeat(self, incarnation: int, progress: Any) -> None:
        command = Heartbeat(id=self.agent.id, incarnation=incarnation, progress=progress)
        self._pass(timedelta(microseconds=1))
        before = self.agent
        try:
            decision = agents.heartbeat(command, before, now=self.now)
        except Refusal:
            assert incarnation != self.processes or before.status not in LIVE
            return
        self.agent = decision.entity
        doubted = before.suspected_at is not None and self.now - before.suspected_at >= IN_FLIGHT
        assert incarnation == self.processes
        assert self._types(decision.events) == [AgentReconnected] * doubted
        assert self.agent.version == before.version + doubted
        lease = timedelta(seconds=LEASE_HEARTBEATS * before.heartbeat_interval_s)
        until = None if before.lease_expires_at is None else self.now + lease
        assert isinstance(decision.reply, HeartbeatReply)
        assert self.agent.lease_expires_at == decision.reply.lease_expires_at == until
        assert decision.reply.cancel_requested == self.cancel_requested
        assert self.agent.status == before.status

    @rule()
    def request_cancel(self) -> None:
        command = RequestAgentCancel(id=self.agent.id)
        before = self.agent
        self.step(
            "request_cancel",
            lambda: agents.request_agent_cancel(command, self.agent, now=self.now),
            AgentCancelRequested,
        )
        if self.agent is not before:
            assert before.cancel_requested_at is None
            assert before.lease_expires_at is not None
            self.cancel_requested = True

    @rule()
    def dismiss(self) -> None:
        command = DismissAgent(id=self.agent.id)
        before = self.agent
        self.step(
            "dismiss",
            lambda: agents.dismiss_agent(command, self.agent, now=self.now),
            AgentDismissed,
        )
        if self.agent is not before:
            assert before.dismissed_at is None

    @rule(interval=st.sampled_from([1, 10, 60]), version=st.none() | st.integers(1, 5))
    def update(self, interval: int, version: int | None) -> None:
        command = UpdateAgent(
            id=self.agent.id, heartbeat_interval_s=interval, expected_version=version
        )
        before = self.agent
        self.step(
            None, lambda: agents.update_agent(command, self.agent, now=self.now), AgentUpdated
        )
        stale = version not in {None, before.version}
        needless = interval == before.heartbeat_interval_s
        assert (self.agent is before) == (stale or needless)

    @precondition(lambda self: self.agent.status == "running" and self.agent.stalled_at is None)
    @rule()
    def stall(self) -> None:
        self.step(None, lambda: stall(self.agent, self.now), AgentStalled)

    @rule(incarnation=INCARNATIONS)
    def append(self, incarnation: int | None) -> None:
        command = AppendLogChunk(agent_id=self.agent.id, incarnation=incarnation, content="said")
        may = self._may(incarnation, "append")
        try:
            append_log_chunk(command, self.agent, new_id=uuid7(), now=self.now)
        except Refusal:
            assert not may
        else:
            assert may

    @rule(incarnation=INCARNATIONS)
    def switch_account(self, incarnation: int | None) -> None:
        if not self._may(incarnation, "switch_account"):
            return
        self.step(
            None, lambda: switched(self.agent, uuid7(), "exhausted", self.now), AgentAccountSwitched
        )

    @rule(seconds=PAUSES)
    def wait(self, seconds: float) -> None:
        self._pass(timedelta(seconds=seconds))

    def speak(
        self, incarnation: int | None, action: str, decide: Decide, *told: type[Event]
    ) -> None:
        """What only the process that is the agent now may say."""
        before = self.agent
        self.step(action, decide, *told)
        if incarnation not in {None, self.processes}:
            assert self.agent is before

    def depart(
        self, incarnation: int | None, action: str, decide: Callable[[Held], Departure]
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
        if after is before:
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

    def _tasks_are_given_back(self, held: Held, departure: Departure) -> None:
        after = {decision.entity.id: decision for decision in departure.tasks}
        assert list(after) == [task.id for task in held.tasks]
        for before in held.tasks:
            decision = after[before.id]
            [event] = decision.events
            assert isinstance(event, GIVEN_BACK)
            self.given_back[before.id, before.attempt] += 1
            self._is_free(before, decision.entity, crashed=self.agent.status == "crashed")
        assert departure.events[0] is departure.agent.events[0]
        self.tasks = [after[one.id].entity if one.id in after else one for one in self.tasks]
        if isinstance(told := departure.events[0], AgentCrashed):
            assert [(one.id, one.retry_count) for one in told.tasks] == [
                (one.entity.id, one.entity.retry_count) for one in departure.tasks
            ]

    def _is_free(self, before: Task, after: Task, *, crashed: bool) -> None:
        blocked = crashed and before.retry_count == MAX_RETRIES
        assert after.status == ("blocked" if blocked else "pending")
        assert (after.claimed_by, after.lease_expires_at) == (None, None)
        assert after.retry_count == before.retry_count + (crashed and not blocked)
        assert after.version == before.version + 1

    def _held(self) -> Held:
        return Held([self.agent], [one for one in self.tasks if one.status == "in_progress"])

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


TestHistories = Histories.TestCase
