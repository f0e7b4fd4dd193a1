from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.errors import InvalidTransition
from contracts.agents.agents import (
    Agent,
    ConfirmSuspicion,
    CrashAgent,
    GetAgent,
    Heartbeat,
    ResumeAgent,
    StaleIncarnation,
    SuspectAgent,
)
from contracts.planning.tasks import (
    AcceptLateResult,
    CompleteTask,
    GetTask,
    StaleAttempt,
)
from fleetbus.client import Bus
from tests.agents.arrange import a_working_agent, claim, task_row
from tests.kit.outbox import Outbox

OVER = timedelta(seconds=31)


async def crash(bus: Bus, agent: Agent, **fields: Any) -> Agent:
    return await bus.call(CrashAgent(id=agent.id, reason="killed", **fields))


class TestCrashAgent:
    async def test_its_task_is_tried_again(self, bus: Bus, outbox: Outbox) -> None:
        agent, [task] = await a_working_agent(bus)
        beating = Heartbeat(id=agent.id, incarnation=1, progress={"step": "tests"})
        await bus.call(beating)

        crashed = await crash(bus, agent, exit_code=-9)

        assert (crashed.status, crashed.exit_code) == ("crashed", -9)
        assert (crashed.lease_expires_at, crashed.task_id) == (None, task.id)
        assert await bus.call(GetAgent(id=agent.id)) == crashed
        again = await bus.call(GetTask(id=task.id))
        assert (again.status, again.retry_count, again.claimed_by) == ("pending", 1, None)
        assert (await outbox.types())[-3:] == ["agent.crashed", "task.retried", "task.ready"]
        [event] = await outbox.data("agent.crashed")
        lost = {"id": str(task.id), "attempt": 1, "outcome": "retried", "retry_count": 1}
        assert event == {
            "agent": crashed.model_dump(mode="json"),
            "cause": "reported",
            "reason": "killed",
            "exit_code": -9,
            "tasks": [lost],
            "progress": {"step": "tests"},
        }

    async def test_all_its_tasks_and_no_others(self, bus: Bus, db: AsyncConnection) -> None:
        agent, tasks = await a_working_agent(bus, 3)
        _, [others] = await a_working_agent(bus)
        await bus.call(CompleteTask(id=tasks[0].id, attempt=1))

        await crash(bus, agent)

        found = [(await task_row(db, task.id)).status for task in [*tasks, others]]
        assert found == ["completed", "pending", "pending", "in_progress"]

    async def test_a_person_looks_after_three_retries(self, bus: Bus, outbox: Outbox) -> None:
        agent, [task] = await a_working_agent(bus)
        for _ in range(3):
            await crash(bus, agent)
            await bus.call(ResumeAgent(id=agent.id))
            [task] = await claim(bus, agent)
        assert (task.attempt, task.retry_count) == (4, 3)

        await crash(bus, agent)

        blocked = await bus.call(GetTask(id=task.id))
        assert (blocked.status, blocked.retry_count) == ("blocked", 3)
        assert blocked.blocked_reason == "It was lost 4 times; its agent crashed in attempt 4."
        assert (await outbox.types())[-2:] == ["agent.crashed", "task.blocked"]
        outcomes = [event["tasks"][0]["outcome"] for event in await outbox.data("agent.crashed")]
        assert outcomes == ["retried", "retried", "retried", "blocked"]

    async def test_what_it_completes_after_that_is_kept(self, bus: Bus) -> None:
        agent, [task] = await a_working_agent(bus)
        await crash(bus, agent)

        with pytest.raises(StaleAttempt):
            await bus.call(CompleteTask(id=task.id, attempt=1, summary="done after all"))

        accepted = await bus.call(AcceptLateResult(id=task.id, attempt=1))
        assert (accepted.status, accepted.summary) == ("completed", "done after all")

    async def test_once(self, bus: Bus, outbox: Outbox) -> None:
        agent, _ = await a_working_agent(bus)
        await crash(bus, agent)

        with pytest.raises(InvalidTransition) as refused:
            await crash(bus, agent)

        assert refused.value.from_ == "crashed"
        assert await outbox.count("agent.crashed") == 1

    async def test_of_an_old_incarnation(self, bus: Bus, outbox: Outbox) -> None:
        agent, _ = await a_working_agent(bus)
        await crash(bus, agent)
        await bus.call(ResumeAgent(id=agent.id))

        with pytest.raises(StaleIncarnation) as refused:
            await crash(bus, agent, incarnation=1)

        assert (refused.value.current_incarnation, refused.value.agent_status) == (2, "running")
        assert await outbox.count("agent.crashed") == 1


class TestConfirmSuspicion:
    async def test_it_is_crashed(self, bus: Bus, outbox: Outbox) -> None:
        agent, [task] = await a_working_agent(bus)
        [suspected] = (await bus.call(SuspectAgent(connection_name=str(agent.id)))).agents
        assert suspected.suspected_at is not None

        crashed = await bus.call(ConfirmSuspicion(id=agent.id, suspected_at=suspected.suspected_at))

        assert (crashed.status, crashed.suspected_at) == ("crashed", None)
        assert (await bus.call(GetTask(id=task.id))).status == "pending"
        [event] = await outbox.data("agent.crashed")
        assert (event["cause"], event["exit_code"]) == ("disconnected", None)

    async def test_another_suspicion_changes_nothing(self, bus: Bus, outbox: Outbox) -> None:
        agent, _ = await a_working_agent(bus)
        [suspected] = (await bus.call(SuspectAgent(connection_name=str(agent.id)))).agents
        assert suspected.suspected_at is not None
        earlier = suspected.suspected_at - timedelta(microseconds=1)

        found = await bus.call(ConfirmSuspicion(id=agent.id, suspected_at=earlier))

        assert found == suspected
        assert await outbox.data("agent.crashed") == []

    async def test_after_its_end_nothing_changes(self, bus: Bus, outbox: Outbox) -> None:
        agent, _ = await a_working_agent(bus)
        [suspected] = (await bus.call(SuspectAgent(connection_name=str(agent.id)))).agents
        assert suspected.suspected_at is not None
        crashed = await crash(bus, agent)

        confirming = ConfirmSuspicion(id=agent.id, suspected_at=suspected.suspected_at)

        assert await bus.call(confirming) == crashed
        assert await outbox.count("agent.crashed") == 1
