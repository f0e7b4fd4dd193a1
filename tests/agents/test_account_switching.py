from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.agents.accounts import (
    Account,
    AcquireAccount,
    CreateAccount,
    MarkAccountExhausted,
    NoAccountAvailable,
)
from contracts.agents.agents import Agent, GetAgent, StopAgent, SwitchAgentAccount
from fleetbus.client import Bus
from tests.agents.arrange import an_agent
from tests.kit.outbox import Outbox
from tests.planning.arrange import add_task


async def accounts(bus: Bus, count: int) -> list[Account]:
    return [
        await bus.call(CreateAccount(email=f"{n}@example.com", sort_order=n)) for n in range(count)
    ]


class TestSwitchAgentAccount:
    async def test_to_the_one_that_has_rested_longest(self, bus: Bus, outbox: Outbox) -> None:
        first, second = await accounts(bus, 2)
        agent = await an_agent(bus, account_id=first.id)

        switched = await bus.call(SwitchAgentAccount(id=agent.id, reason="rate limited"))

        assert switched.account_id == second.id
        assert (await bus.call(AcquireAccount())).id == first.id
        [event] = await outbox.all("agent.account_switched")
        assert event.data["previous_account_id"] == str(first.id)
        assert event.data["reason"] == "rate limited"

    async def test_to_the_one_that_is_named(self, bus: Bus, outbox: Outbox) -> None:
        first, _, third = await accounts(bus, 3)
        agent = await an_agent(bus, account_id=first.id)
        switch = SwitchAgentAccount(id=agent.id, account_id=third.id, reason="asked for")

        switched = await bus.call(switch)

        assert switched.account_id == third.id
        assert await bus.call(switch) == switched
        assert await outbox.count("agent.account_switched") == 1

    async def test_refusals(self, bus: Bus) -> None:
        [only] = await accounts(bus, 1)
        agent = await an_agent(bus, account_id=only.id)

        with pytest.raises(NoAccountAvailable):
            await bus.call(SwitchAgentAccount(id=agent.id, reason="rate limited"))


class TestSwitchExhaustedAccounts:
    async def test_each_agent_gets_its_own_turn(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        first, second, third = await accounts(bus, 3)
        agents = [await an_agent(bus, account_id=first.id) for _ in range(3)]
        await an_agent(bus, account_id=first.id, task_id=await add_task(db))
        ended = await an_agent(bus, account_id=first.id)
        await bus.call(StopAgent(id=ended.id, reason="error"))
        elsewhere = await an_agent(bus, account_id=second.id)

        await bus.call(MarkAccountExhausted(id=first.id))

        async def on(agent: Agent) -> Any:
            return (await bus.call(GetAgent(id=agent.id))).account_id

        assert [await on(agent) for agent in agents] == [second.id, third.id, second.id]
        assert [await on(ended), await on(elsewhere)] == [first.id, second.id]
        switched = await outbox.all("agent.account_switched")
        assert len(switched) == 4
        assert {event.cause for event in switched} == {"reaction:switch_exhausted_accounts"}

    async def test_without_another_they_say_that_they_need_one(
        self, bus: Bus, outbox: Outbox
    ) -> None:
        [only] = await accounts(bus, 1)
        agent = await an_agent(bus, account_id=only.id)

        await bus.call(MarkAccountExhausted(id=only.id))

        assert (await bus.call(GetAgent(id=agent.id))).account_id == only.id
        [event] = await outbox.all("agent.account_needed")
        assert (event.data["agent"]["id"], event.data["agent"]["version"]) == (str(agent.id), 2)
