"""Histories of one agent and its tasks through the pure deciders."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from bus.contract.refusals import Refusal
from bus.kit.ids import uuid7
from bus.storage.own.pulse import LEASE_HEARTBEATS
from contracts.agents.agents import (
    AgentAccountSwitched,
    AgentCancelRequested,
    AgentDismissed,
    AgentReconnected,
    AgentResumed,
    AgentRunning,
    AgentStalled,
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
)
from handlers.agents import agents
from handlers.agents._account_switching import switch_account
from handlers.agents._agent_claims import take_up
from handlers.agents._agent_crashes import confirm, expire, report
from handlers.agents._agent_departures import Departure
from handlers.agents._agent_endings import finish, stop
from handlers.agents._agent_liveness import IN_FLIGHT, reinstate, suspect
from handlers.agents._agent_progress import stall
from handlers.agents._agent_rules import (
    LIVE,
    new_agent,
    start_work,
)
from handlers.agents.log_chunks import append_log_chunk
from handlers.planning.task_claims import claim_task
from handlers.planning.task_rules import MAX_RETRIES
from persistence.agents.agent_tasks import LockedAgents
from tests.agents.arrange import QUESTIONS
from tests.agents.expectations import Expectations

PAUSES = st.sampled_from([0.0001, 0.2, 0.6, 5, 29, 31, 400])
INCARNATIONS = st.none() | st.integers(1, 3)
TASKS = 3


class Histories(Expectations):
    """Everything that can happen to an agent, in any order."""

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
        self.tasks[number] = task = claim_task(task, mine, self.now)
        self.claims.add((task.id, task.attempt))
        if before.status not in {"idle", "running"}:
            assert not take_up(before, task.id, self.now).changed
            return
        begins = before.status == "idle"
        self.step(
            "begin" if begins else None,
            lambda: take_up(self.agent, task.id, self.now),
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
        def decide(held: LockedAgents) -> Departure:
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

        def decide(held: LockedAgents) -> Departure:
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
            None,
            lambda: switch_account(self.agent, uuid7(), "exhausted", self.now),
            AgentAccountSwitched,
        )

    @rule(seconds=PAUSES)
    def wait(self, seconds: float) -> None:
        self._pass(timedelta(seconds=seconds))


TestHistories = Histories.TestCase
