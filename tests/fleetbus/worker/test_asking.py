"""An agent that asks a person, and waits."""

import asyncio

import pytest

from contracts.agents.agents import CrashAgent, ResumeAgent
from fleetbus.client import AgentLost, Bus, WorkingAgent
from tests.fleetbus.worker.arrange import PATIENCE, run, stored, until


class TestAsk:
    async def test_waits_for_the_answers(self, bus: Bus) -> None:
        async with asyncio.timeout(PATIENCE), bus.agent() as agent:
            asking = asyncio.create_task(agent.ask([{"question": "Which?"}]))
            await until(lambda: _waits(bus, agent))
            assert (await stored(bus, agent)).pending_questions == [{"question": "Which?"}]

            await bus.call(ResumeAgent(id=agent.id, answers={"Which?": "Both"}))

            assert await asking == {"Which?": "Both"}
            assert (await stored(bus, agent)).status == "running"

    async def test_an_answer_of_which_no_event_tells_is_found(
        self, bus: Bus, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("fleetbus.client.agent.LOOK_SECONDS", 0.05)
        monkeypatch.setattr(WorkingAgent, "listen", _deaf)
        async with asyncio.timeout(PATIENCE), bus.agent() as agent:
            asking = asyncio.create_task(agent.ask([{"question": "Which?"}]))
            await until(lambda: _waits(bus, agent))
            await bus.call(ResumeAgent(id=agent.id))
            assert await asking == {}

    async def test_one_that_ends_meanwhile_is_lost(self, bus: Bus) -> None:
        async def ask_and_crash(agent: WorkingAgent) -> None:
            crashing = asyncio.create_task(_crash_when_waiting(bus, agent))
            try:
                await agent.ask([{"question": "Which?"}])
            finally:
                await crashing

        _, error = await run(bus, ask_and_crash)
        assert isinstance(error, AgentLost)

    async def test_where_nothing_was_claimed_the_agent_begins_to_run(self, bus: Bus) -> None:
        async with bus.agent() as agent:
            assert (await stored(bus, agent)).status == "idle"
            asking = asyncio.create_task(agent.ask([{"question": "Which?"}]))
            await until(lambda: _waits(bus, agent))
            await bus.call(ResumeAgent(id=agent.id, answers={"a": 1}))
            assert await asyncio.wait_for(asking, PATIENCE) == {"a": 1}


async def _deaf(_: WorkingAgent) -> None:
    """Hear of no event."""


async def _waits(bus: Bus, agent: WorkingAgent) -> bool:
    return (await stored(bus, agent)).status == "waiting_for_input"


async def _crash_when_waiting(bus: Bus, agent: WorkingAgent) -> None:
    await until(lambda: _waits(bus, agent))
    await bus.call(CrashAgent(id=agent.id, reason="gone"))
