"""What belongs to one run of an agent ends with it."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.errors import InvalidTransition
from bus.contract.operation import Command
from bus.contract.refusals import Conflict
from contracts.agents.agents import (
    AskInput,
    ConfirmSuspicion,
    CrashAgent,
    FinishAgent,
    GetAgent,
    Heartbeat,
    RequestAgentCancel,
    ResumeAgent,
    StaleIncarnation,
    StopAgent,
    SuspectAgent,
    SwitchAgentAccount,
    UpdateAgent,
)
from contracts.agents.log_chunks import AppendLogChunk, AppendManyLogChunks, LogChunkItem
from contracts.planning.tasks import (
    BlockTask,
    ClaimTasks,
    CompleteTask,
    ReleaseTask,
    RenewTask,
)
from fleetbus.client import Bus
from tests.agents.arrange import QUESTIONS, a_task, a_working_agent, an_agent, ask, claim, end
from tests.kit.outbox import Outbox


class TestRuns:
    async def test_what_was_asked_of_one_is_not_asked_of_the_next(self, bus: Bus) -> None:
        agent, [task] = await a_working_agent(bus)
        await bus.call(RequestAgentCancel(id=agent.id))
        await bus.call(CompleteTask(id=task.id, attempt=1))
        await bus.call(FinishAgent(id=agent.id))
        await a_task(bus)
        await claim(bus, agent)

        reply = await bus.call(Heartbeat(id=agent.id, incarnation=1))

        assert not reply.cancel_requested
        assert (await bus.call(GetAgent(id=agent.id))).cancel_requested_at is None

    @pytest.mark.parametrize("how", ["finish", "stop", "crash"])
    async def test_what_is_known_of_one_is_not_known_of_the_next(self, bus: Bus, how: str) -> None:
        agent, _ = await a_working_agent(bus)
        await ask(bus, agent)
        await bus.call(ResumeAgent(id=agent.id, answers={"Which database?": "Postgres"}))
        beating = Heartbeat(id=agent.id, incarnation=1, progress={"step": "tests"})
        await bus.call(beating)
        if how == "finish":
            ended = await bus.call(FinishAgent(id=agent.id, result={"merged": True}))
            assert (ended.result, ended.progress) == ({"merged": True}, {"step": "tests"})
            await claim(bus, agent)
        else:
            await ask(bus, agent)
            if how == "stop":
                await bus.call(StopAgent(id=agent.id, reason="error", exit_code=3))
            else:
                await bus.call(CrashAgent(id=agent.id, reason="killed", exit_code=-9))
            await bus.call(ResumeAgent(id=agent.id))

        again = await bus.call(GetAgent(id=agent.id))
        assert again.status == "running"
        assert (again.result, again.answers, again.pending_questions) == (None, None, None)
        assert (again.progress, again.exit_code) == (None, None)
        assert again.last_progress_at is not None

    async def test_one_that_has_not_begun_to_work_can_be_asked_to_end(self, bus: Bus) -> None:
        agent = await an_agent(bus)
        await bus.call(RequestAgentCancel(id=agent.id))
        await a_task(bus)

        await claim(bus, agent)

        assert (await bus.call(Heartbeat(id=agent.id, incarnation=1))).cancel_requested

    async def test_of_one_that_has_finished_nothing_is_asked(self, bus: Bus) -> None:
        agent, _ = await a_working_agent(bus)
        finished = await bus.call(FinishAgent(id=agent.id))

        with pytest.raises(InvalidTransition) as refused:
            await bus.call(RequestAgentCancel(id=agent.id))

        assert refused.value.expected == "in a run that could be ended"
        assert await bus.call(GetAgent(id=agent.id)) == finished

    @pytest.mark.parametrize("end_it", [StopAgent, CrashAgent])
    async def test_one_that_ended_does_nothing(self, bus: Bus, end_it: Any, outbox: Outbox) -> None:
        agent, [task] = await a_working_agent(bus)
        reason = "user_requested" if end_it is StopAgent else "killed"
        ended = await bus.call(end_it(id=agent.id, reason=reason))
        told_so_far = await outbox.count()
        acts: list[Command[Any]] = [
            Heartbeat(id=agent.id, incarnation=1),
            AskInput(id=agent.id, questions=QUESTIONS),
            FinishAgent(id=agent.id),
            StopAgent(id=agent.id, reason="error"),
            CrashAgent(id=agent.id, reason="again"),
            RequestAgentCancel(id=agent.id),
            SwitchAgentAccount(id=agent.id, reason="rate limited"),
            AppendLogChunk(agent_id=agent.id, content="late"),
            AppendManyLogChunks(agent_id=agent.id, items=[LogChunkItem(content="late")]),
            ClaimTasks(agent_id=str(agent.id).upper()),
            RenewTask(id=task.id, attempt=1),
            CompleteTask(id=task.id),
            ReleaseTask(id=task.id, attempt=1, reason="late"),
            BlockTask(id=task.id, attempt=1, reason="late"),
        ]

        for act in acts:
            with pytest.raises(Conflict):
                await bus.call(act)

        assert await bus.call(GetAgent(id=agent.id)) == ended
        assert await outbox.count() == told_so_far

    async def test_every_act_is_fenced_by_its_incarnation(self, bus: Bus, outbox: Outbox) -> None:
        agent = await end(bus, await an_agent(bus))
        resumed = await bus.call(ResumeAgent(id=agent.id))
        told_so_far = await outbox.count()
        acts: list[Command[Any]] = [
            Heartbeat(id=agent.id, incarnation=1),
            AskInput(id=agent.id, incarnation=1, questions=QUESTIONS),
            FinishAgent(id=agent.id, incarnation=1),
            StopAgent(id=agent.id, incarnation=1, reason="error"),
            CrashAgent(id=agent.id, incarnation=1, reason="late"),
            UpdateAgent(id=agent.id, incarnation=1, pid=7),
            SwitchAgentAccount(id=agent.id, incarnation=1, reason="rate limited"),
            AppendLogChunk(agent_id=agent.id, incarnation=1, content="late"),
            AppendManyLogChunks(
                agent_id=agent.id, incarnation=1, items=[LogChunkItem(content="late")]
            ),
            ClaimTasks(agent_id=str(agent.id), incarnation=1),
        ]

        for act in acts:
            with pytest.raises(StaleIncarnation):
                await bus.call(act)

        assert await bus.call(GetAgent(id=agent.id)) == resumed
        assert await outbox.count() == told_so_far

    async def test_a_late_suspicion_of_the_process_before(self, bus: Bus) -> None:
        agent = await an_agent(bus)
        [suspected] = (await bus.call(SuspectAgent(connection_name=str(agent.id)))).agents
        assert suspected.suspected_at is not None
        await end(bus, agent)
        resumed = await bus.call(ResumeAgent(id=agent.id))

        late = ConfirmSuspicion(id=agent.id, suspected_at=suspected.suspected_at)

        assert await bus.call(late) == resumed

    async def test_an_end_and_claims_at_once(self, bus: Bus, db: AsyncConnection) -> None:
        for _ in range(12):
            await a_task(bus)
        for n in range(6):
            agent = await an_agent(bus)
            claims = [claim(bus, agent) for _ in range(4)]
            ends = [end(bus, agent)] if n % 2 else [bus.call(CrashAgent(id=agent.id, reason="k"))]
            await asyncio.gather(*claims[:2], *ends, *claims[2:], return_exceptions=True)

        held = text(
            "SELECT count(*) FROM planning.tasks t JOIN agents.agents a"
            " ON t.claimed_by = a.id::text WHERE a.status IN ('stopped', 'crashed')"
        )
        assert (await db.execute(held)).scalar_one() == 0
