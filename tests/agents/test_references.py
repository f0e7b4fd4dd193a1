"""Whatever an agent refers to may be deleted; the agent lets go of it, and that is told."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.errors import InvalidReference
from bus.contract.operation import Command
from bus.contract.refusals import Refusal
from bus.kit.ids import uuid7
from contracts.agents.accounts import DeleteAccount
from contracts.agents.agents import Agent, GetAgent, SwitchAgentAccount, UpdateAgent
from contracts.planning.initiatives import CreateInitiative, DeleteInitiative
from contracts.planning.phases import CreatePhase, DeletePhase
from contracts.planning.tasks import CreateTask, DeleteTask
from fleetbus.client import Bus
from tests.agents.arrange import add_account, an_agent, end
from tests.counting import Counted
from tests.kit.outbox import Outbox

Statements = Callable[[], AbstractContextManager[Counted]]


async def planned(bus: Bus) -> dict[str, UUID]:
    """A task below another one, in a phase of an initiative."""
    initiative = await bus.call(CreateInitiative(name="an initiative"))
    phase = await bus.call(CreatePhase(initiative_id=initiative.id, name="a phase"))
    parent = await bus.call(CreateTask(name="parent", phase_id=phase.id))
    task = await bus.call(CreateTask(name="a task", parent_task_id=parent.id, phase_id=phase.id))
    return {"initiative": initiative.id, "phase": phase.id, "parent": parent.id, "task": task.id}


DELETIONS: list[tuple[str, type[Command[Any]], dict[str, Any]]] = [
    ("task", DeleteTask, {"task_id": None}),
    ("parent", DeleteTask, {"task_id": None}),
    ("phase", DeletePhase, {"task_id": None}),
    ("initiative", DeleteInitiative, {"task_id": None, "initiative_id": None}),
]


class TestDeletions:
    @pytest.mark.parametrize(("what", "operation", "emptied"), DELETIONS)
    @pytest.mark.parametrize("ended", [False, True])
    async def test_each_agent_lets_go_once(
        self,
        bus: Bus,
        outbox: Outbox,
        what: str,
        operation: Any,
        emptied: dict[str, Any],
        ended: bool,
    ) -> None:
        ids = await planned(bus)
        given = {"task_id": ids["task"], "initiative_id": ids["initiative"]}
        agents = [await an_agent(bus, **given) for _ in range(3)]
        agents = [await end(bus, agent) for agent in agents] if ended else agents
        other = await an_agent(bus)

        await bus.call(operation(id=ids[what]))

        for before in agents:
            after = await bus.call(GetAgent(id=before.id))
            changed = {"version": before.version + 1, "updated_at": after.updated_at} | emptied
            assert after == before.model_copy(update=changed)
        assert await bus.call(GetAgent(id=other.id)) == other
        events = await outbox.data("agent.updated")
        assert sorted(event["agent"]["id"] for event in events) == sorted(
            str(agent.id) for agent in agents
        )

    async def test_of_an_account(self, bus: Bus, db: AsyncConnection, outbox: Outbox) -> None:
        account = await add_account(db)
        agent = await an_agent(bus, account_id=account)

        await bus.call(DeleteAccount(id=account))

        found = await bus.call(GetAgent(id=agent.id))
        assert (found.account_id, found.version) == (None, agent.version + 1)
        [event] = await outbox.data("agent.updated")
        assert event["agent"]["id"] == str(agent.id)

    async def test_of_many_agents_in_as_many_statements_as_of_one(
        self, bus: Bus, statements: Statements
    ) -> None:
        counts = []
        for number in (1, 20):
            ids = await planned(bus)
            for _ in range(number):
                await an_agent(bus, task_id=ids["task"])
            with statements() as counted:
                await bus.call(DeletePhase(id=ids["phase"]))
            counts.append(len(counted.texts))
        assert counts[0] == counts[1]


class TestRaces:
    async def test_nothing_refers_to_what_is_gone(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        account = await add_account(db)
        for _ in range(10):
            ids = await planned(bus)
            agent = await an_agent(bus)
            answers = await asyncio.gather(
                an_agent(bus, task_id=ids["task"]),
                bus.call(DeleteTask(id=ids["parent"])),
                bus.call(UpdateAgent(id=agent.id, task_id=ids["task"])),
                an_agent(bus, task_id=ids["task"], initiative_id=ids["initiative"]),
                return_exceptions=True,
            )
            assert not isinstance(answers[1], Refusal)
            refused = [one for one in answers if isinstance(one, BaseException)]
            assert all(isinstance(one, InvalidReference) for one in refused)
        agents = [await an_agent(bus) for _ in range(4)]
        at_once: list[Command[Any]] = [
            SwitchAgentAccount(id=one.id, account_id=account, reason="x") for one in agents
        ]
        at_once.insert(2, DeleteAccount(id=account))
        await asyncio.gather(*(bus.call(one) for one in at_once), return_exceptions=True)

        left = "SELECT count(*) FROM agents.agents WHERE coalesce(task_id, account_id) IS NOT NULL"
        assert (await db.execute(text(left))).scalar_one() == 0
        versions: dict[str, list[int]] = {}
        for row in await outbox.all():
            if row.type.startswith("agent."):
                versions.setdefault(row.entity_id, []).append(row.data["agent"]["version"])
        assert all(seen == list(range(1, len(seen) + 1)) for seen in versions.values())

    async def test_only_who_names_it_is_refused_of_those_at_once(self, bus: Bus) -> None:
        ids = await planned(bus)
        agents = [await an_agent(bus) for _ in range(8)]
        missing = uuid7()
        asked = [
            UpdateAgent(id=agent.id, task_id=missing if number == 3 else ids["task"])
            for number, agent in enumerate(agents)
        ]

        answers = await asyncio.gather(*map(bus.call, asked), return_exceptions=True)

        refused = answers.pop(3)
        assert isinstance(refused, InvalidReference)
        assert (refused.field, refused.entity) == ("task_id", "task")
        assert all(isinstance(one, Agent) and one.task_id == ids["task"] for one in answers)
        assert await bus.call(GetAgent(id=agents[3].id)) == agents[3]
