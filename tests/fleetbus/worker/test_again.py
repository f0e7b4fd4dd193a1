"""An agent that was held for crashed comes back as its next incarnation, and goes on."""

import asyncio
from contextlib import suppress

import pytest

from bus.kit.ids import uuid7
from contracts.agents.agents import CrashAgent, DeleteAgent, FindAgent, StaleIncarnation, StopAgent
from contracts.planning.tasks import GetTask
from fleetbus.client import AgentLost, Bus, TaskLost, WorkingAgent
from fleetbus.client.again import was_held_for_crashed
from tests.fleetbus.worker.arrange import PATIENCE, a_task, for_ever


class Worker:
    """Completes what it claims; in the first task of its first incarnation it is stuck."""

    def __init__(self) -> None:
        self.came: list[int] = []
        self.stuck = asyncio.Event()

    async def __call__(self, agent: WorkingAgent) -> str:
        self.came.append(agent.incarnation)
        async for task in agent.tasks(idle_seconds=0):
            with suppress(TaskLost), task:
                if agent.incarnation == 1:
                    self.stuck.set()
                    await for_ever(agent)
                await task.complete()
        return f"ended as {agent.incarnation}"


async def test_it_goes_on_claiming(bus: Bus) -> None:
    tasks = [await a_task(bus), await a_task(bus)]
    worker = Worker()
    working = asyncio.create_task(bus.work(worker, name="otter"))
    await worker.stuck.wait()
    agent = await bus.call(FindAgent(name="otter"))

    await bus.call(CrashAgent(id=agent.id, reason="It was away."))

    assert await asyncio.wait_for(working, PATIENCE) == "ended as 2"
    assert worker.came == [1, 2]
    for task in tasks:
        assert (await bus.call(GetTask(id=task.id))).status == "completed"
    ended = await bus.call(FindAgent(name="otter"))
    assert (ended.id, ended.status, ended.incarnation) == (agent.id, "stopped", 2)


@pytest.mark.parametrize("deleted", [False, True])
async def test_what_somebody_meant_is_not_undone(bus: Bus, deleted: bool) -> None:
    await a_task(bus)
    worker = Worker()
    working = asyncio.create_task(bus.work(worker, name="otter"))
    await worker.stuck.wait()
    agent = await bus.call(FindAgent(name="otter"))

    await bus.call(StopAgent(id=agent.id, reason="user_requested"))
    if deleted:
        await bus.call(DeleteAgent(id=agent.id))

    with pytest.raises(AgentLost):
        await asyncio.wait_for(working, PATIENCE)
    assert worker.came == [1]


def test_one_that_was_begun_elsewhere_is_left_to_that_process() -> None:
    id_ = uuid7()
    stale = StaleIncarnation(id=id_, incarnation=1, current_incarnation=2, agent_status="running")
    lost = AgentLost(id_, stale)
    lost.__cause__ = stale
    assert not was_held_for_crashed(lost)


async def test_work_that_is_done_is_not_done_again(bus: Bus) -> None:
    calls = 0

    async def work(agent: WorkingAgent) -> int:
        nonlocal calls
        calls += 1
        await bus.call(CrashAgent(id=agent.id, reason="at the last moment"))
        return calls

    assert await bus.work(work) == 1
    assert calls == 1
