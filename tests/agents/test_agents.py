import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.errors import AlreadyExists, InvalidReference, InvalidTransition
from bus.kit.ids import uuid7
from contracts.agents.agents import (
    AgentNotFound,
    DeleteAgent,
    DismissAgent,
    FindAgent,
    GetAgent,
    GetAgentPrompt,
    ListAgents,
    UpdateAgent,
)
from contracts.planning.initiatives import CreateInitiative
from contracts.planning.tasks import ClaimTasks, GetTask
from fleetbus.client import Bus
from handlers.agents import _agent_aliases
from tests.agents.arrange import a_task, a_working_agent, an_agent, ask, end
from tests.counting import Counted
from tests.kit.outbox import Outbox

Statements = Callable[[], AbstractContextManager[Counted]]

SECRET = "what it is told to do, in words that stand nowhere else"


class TestRegisterAgent:
    async def test_without_a_task(self, bus: Bus, outbox: Outbox) -> None:
        before = datetime.now(UTC)
        agent = await an_agent(bus, name="brave-otter", host="worker-3", pid=4711)

        assert (agent.version, agent.status, agent.incarnation) == (1, "idle", 1)
        assert (agent.name, agent.host, agent.pid) == ("brave-otter", "worker-3", 4711)
        assert (agent.provider, agent.mode, agent.task_id) == ("claude", "execute", None)
        assert agent.connection_name == str(agent.id)
        assert agent.lease_expires_at is not None
        assert agent.lease_expires_at - agent.created_at == timedelta(seconds=30)
        assert agent.created_at > before - timedelta(minutes=1)
        assert await bus.call(GetAgent(id=agent.id)) == agent
        assert [(row.type, row.data) for row in await outbox.all()] == [
            ("agent.registered", {"agent": agent.model_dump(mode="json")})
        ]

    async def test_with_a_task_it_runs(self, bus: Bus, outbox: Outbox) -> None:
        task = await a_task(bus)

        agent = await an_agent(bus, task_id=task.id)

        assert (agent.version, agent.status, agent.task_id) == (2, "running", task.id)
        assert await bus.call(GetAgent(id=agent.id)) == agent
        registered, running = (await outbox.all())[1:]
        assert (registered.type, registered.data["agent"]["status"]) == ("agent.registered", "idle")
        assert (running.type, running.data["agent"]["status"]) == ("agent.running", "running")

    async def test_a_lease_is_three_heartbeats(self, bus: Bus) -> None:
        agent = await an_agent(bus, heartbeat_interval_s=60)
        assert agent.lease_expires_at is not None
        assert agent.lease_expires_at - agent.created_at == timedelta(minutes=3)

    async def test_without_a_name_it_gets_one(self, bus: Bus) -> None:
        name = (await an_agent(bus)).name
        adjective, animal = name.split("-")
        assert adjective in _agent_aliases.ADJECTIVES
        assert animal in _agent_aliases.ANIMALS

    async def test_many_without_a_name_at_once(
        self, bus: Bus, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_agent_aliases, "ADJECTIVES", ("brave", "calm"))
        monkeypatch.setattr(_agent_aliases, "ANIMALS", ("otter", "heron"))

        agents = await asyncio.gather(*(an_agent(bus) for _ in range(64)))

        names = {agent.name for agent in agents}
        assert len(names) == 64
        assert names >= {"brave-otter", "brave-heron", "calm-otter", "calm-heron"}

    async def test_a_name_that_is_taken(self, bus: Bus) -> None:
        await an_agent(bus, name="brave-otter")
        with pytest.raises(AlreadyExists) as refused:
            await an_agent(bus, name="brave-otter")
        assert (refused.value.entity, refused.value.fields) == ("agent", "name")

    async def test_an_id_that_is_taken(self, bus: Bus) -> None:
        agent = await an_agent(bus, name="brave-otter")
        with pytest.raises(AlreadyExists) as refused:
            await an_agent(bus, id=agent.id)
        assert (refused.value.entity, refused.value.fields) == ("agent", "id")

    @pytest.mark.parametrize("name", ["brave-otter", None])
    @pytest.mark.parametrize("entity", ["task", "initiative", "account"])
    async def test_what_does_not_exist(self, bus: Bus, entity: str, name: str | None) -> None:
        with pytest.raises(InvalidReference) as refused:
            await an_agent(bus, name=name, **{f"{entity}_id": uuid7()})
        assert (refused.value.field, refused.value.entity) == (f"{entity}_id", entity)


class TestGetAgentPrompt:
    async def test_what_it_was_told(self, bus: Bus) -> None:
        agent = await an_agent(bus, prompt=SECRET)
        assert (await bus.call(GetAgentPrompt(id=agent.id))).prompt == SECRET

    async def test_nothing(self, bus: Bus) -> None:
        agent = await an_agent(bus)
        assert (await bus.call(GetAgentPrompt(id=agent.id))).prompt is None

    async def test_it_is_told_nowhere_else(
        self, bus: Bus, outbox: Outbox, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("DEBUG")
        agent = await an_agent(bus, prompt=SECRET)
        await bus.call(UpdateAgent(id=agent.id, pid=1))
        with pytest.raises(AlreadyExists) as refused:
            await an_agent(bus, name=agent.name, prompt=SECRET)
        await end(bus, agent)

        replies = [
            await bus.call(GetAgent(id=agent.id)),
            await bus.call(ListAgents()),
            await bus.call(FindAgent(name=agent.name)),
        ]

        said = [reply.model_dump_json() for reply in replies]
        said += [json.dumps(row.data) for row in await outbox.all()]
        said += [str(refused.value.problem()), caplog.text]
        assert await outbox.count() == 3
        assert [text for text in said if SECRET in text] == []


class TestFindAgent:
    async def test_by_what_it_is_known(self, bus: Bus) -> None:
        task = await a_task(bus)
        await an_agent(bus, name="other")
        agent = await an_agent(bus, name="brave-otter", session_id="s-17", task_id=task.id)

        assert await bus.call(FindAgent(name="brave-otter")) == agent
        assert await bus.call(FindAgent(session_id="s-17")) == agent
        assert await bus.call(FindAgent(task_id=task.id)) == agent

    async def test_the_latest(self, bus: Bus) -> None:
        await an_agent(bus, session_id="s-17")
        latest = await an_agent(bus, session_id="s-17")
        assert await bus.call(FindAgent(session_id="s-17")) == latest

    async def test_unknown(self, bus: Bus) -> None:
        with pytest.raises(AgentNotFound) as refused:
            await bus.call(FindAgent(name="brave-otter"))
        assert refused.value.detail == "there is no agent with name brave-otter"


class TestListAgents:
    async def test_filters(self, bus: Bus) -> None:
        initiative = await bus.call(CreateInitiative(name="one"))
        idle = await an_agent(bus, name="b", mode="plan", initiative_id=initiative.id)
        running, _ = await a_working_agent(bus, name="a")
        dismissed = await bus.call(DismissAgent(id=(await an_agent(bus, name="c")).id))

        async def names(**filters: Any) -> list[str]:
            page = await bus.call(ListAgents(order="name", **filters))
            return [agent.name for agent in page.items]

        assert await names() == ["a", "b", "c"]
        assert await names(status="running") == [running.name]
        assert await names(mode="plan", status="idle") == [idle.name]
        assert await names(initiative_id=initiative.id) == [idle.name]
        assert await names(dismissed=True) == [dismissed.name]
        assert await names(dismissed=False) == ["a", "b"]
        assert await names(suspected=True) == []
        assert await names(suspected=False) == ["a", "b", "c"]

    async def test_pages_of_one_statement(self, bus: Bus, statements: Statements) -> None:
        for name in ("a", "b", "c"):
            await an_agent(bus, name=name)
        with statements() as counted:
            first = await bus.call(ListAgents(limit=2, order="-name"))
        rest = await bus.call(ListAgents(limit=2, order="-name", cursor=first.next_cursor))

        assert counted.total == 1
        assert [agent.name for agent in [*first.items, *rest.items]] == ["c", "b", "a"]


class TestUpdateAgent:
    async def test_what_is_named_changes(self, bus: Bus, outbox: Outbox) -> None:
        agent = await an_agent(bus, host="worker-3", session_id="s-1")

        updated = await bus.call(UpdateAgent(id=agent.id, pid=4712, session_id=None))

        assert (updated.version, updated.pid, updated.session_id) == (2, 4712, None)
        assert (updated.host, updated.name) == ("worker-3", agent.name)
        assert (await outbox.types())[-1] == "agent.updated"

    async def test_nothing_new_changes_nothing(self, bus: Bus, outbox: Outbox) -> None:
        agent = await an_agent(bus, host="worker-3")
        assert await bus.call(UpdateAgent(id=agent.id, host="worker-3")) == agent
        assert await outbox.count() == 1

    async def test_no_incarnation_is_as_if_it_were_left_out(self, bus: Bus) -> None:
        agent = await an_agent(bus)
        updated = await bus.call(UpdateAgent(id=agent.id, pid=1, incarnation=None))
        assert (updated.pid, updated.incarnation) == (1, agent.incarnation)

    async def test_a_name_that_is_taken(self, bus: Bus) -> None:
        await an_agent(bus, name="brave-otter")
        agent = await an_agent(bus)
        with pytest.raises(AlreadyExists):
            await bus.call(UpdateAgent(id=agent.id, name="brave-otter"))


class TestDismissAgent:
    async def test_again_changes_nothing(self, bus: Bus, outbox: Outbox) -> None:
        agent = await end(bus, await an_agent(bus))

        dismissed = await bus.call(DismissAgent(id=agent.id))

        assert dismissed.dismissed_at == dismissed.updated_at
        assert await bus.call(DismissAgent(id=agent.id)) == dismissed
        assert await outbox.count("agent.dismissed") == 1

    async def test_one_that_works(self, bus: Bus) -> None:
        agent, _ = await a_working_agent(bus)
        with pytest.raises(InvalidTransition):
            await bus.call(DismissAgent(id=agent.id))


class TestDeleteAgent:
    async def test_it_is_gone_with_its_prompt(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        agent = await an_agent(bus, name="brave-otter", prompt=SECRET)

        deleted = await bus.call(DeleteAgent(id=agent.id))

        assert (deleted.id, deleted.name) == (agent.id, "brave-otter")
        prompts = await db.execute(text("SELECT count(*) FROM agents.prompts"))
        assert prompts.scalar_one() == 0
        [event] = await outbox.data("agent.deleted")
        assert event["agent"]["version"] == 2

    async def test_what_it_has_goes_back(self, bus: Bus, outbox: Outbox) -> None:
        await a_task(bus)
        id_ = uuid7()
        [claimed] = (await bus.call(ClaimTasks(agent_id=str(id_)))).tasks
        agent = await an_agent(bus, id=id_)

        await bus.call(DeleteAgent(id=agent.id))

        task = await bus.call(GetTask(id=claimed.task.id))
        assert (task.status, task.claimed_by, task.retry_count) == ("pending", None, 0)
        assert (await outbox.types())[-3:] == ["agent.deleted", "task.released", "task.ready"]
        [event] = await outbox.data("task.released")
        assert (event["released_by"], event["reason"]) == (str(id_), "agent_deleted")

    @pytest.mark.parametrize("waits", [False, True])
    async def test_one_that_works(self, bus: Bus, waits: bool) -> None:
        agent, _ = await a_working_agent(bus)
        if waits:
            await ask(bus, agent)
        with pytest.raises(InvalidTransition):
            await bus.call(DeleteAgent(id=agent.id))
