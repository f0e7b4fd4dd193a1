import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from bus.contract.errors import InvalidTransition
from bus.storage.database import driver_url
from bus.storage.own.pulse import LEASE_HEARTBEATS
from contracts.agents.agents import (
    Agent,
    FinishAgent,
    GetAgent,
    Heartbeat,
    HeartbeatReply,
    ListAgents,
    ReinstateAgent,
    RequestAgentCancel,
    ResumeAgent,
    StaleIncarnation,
    SuspectAgent,
    UpdateAgent,
)
from contracts.planning.tasks import GetTask
from fleetbus.client import Bus
from fleetbus.server.config import Settings
from tests.agents.arrange import a_working_agent, an_agent, ask, end, later
from tests.counting import Counted
from tests.kit.outbox import Outbox
from tests.kit.sweeping import Sweep

Statements = Callable[[], AbstractContextManager[Counted]]

LEASE = timedelta(seconds=30)
OVER = LEASE + timedelta(seconds=1)
TIMES = ("lease_expires_at", "last_heartbeat_at", "last_progress_at", "suspected_at")


async def beat(
    bus: Bus, agent: Agent, progress: Any = None, incarnation: int = 1
) -> HeartbeatReply:
    beating = Heartbeat(id=agent.id, incarnation=incarnation, progress=progress)
    return await bus.call(beating)


async def suspect(bus: Bus, agent: Agent) -> list[Agent]:
    assert agent.connection_name is not None
    return (await bus.call(SuspectAgent(connection_name=agent.connection_name))).agents


async def reinstate(bus: Bus, agent: Agent) -> list[Agent]:
    assert agent.connection_name is not None
    return (await bus.call(ReinstateAgent(connection_name=agent.connection_name))).agents


def test_one_lost_heartbeat_is_no_crash() -> None:
    assert LEASE_HEARTBEATS >= 2


class TestHeartbeat:
    async def test_a_lease_of_three_intervals(self, bus: Bus, outbox: Outbox) -> None:
        agent = await an_agent(bus)

        reply = await beat(bus, agent)

        found = await bus.call(GetAgent(id=agent.id))
        assert reply.lease_expires_at == found.lease_expires_at == reply.server_time + LEASE
        assert (found.last_heartbeat_at, reply.cancel_requested) == (reply.server_time, False)
        assert (found.version, found.updated_at) == (agent.version, agent.updated_at)
        assert found.last_progress_at is None
        assert await outbox.types() == ["agent.registered"]

    async def test_progress(self, bus: Bus, outbox: Outbox) -> None:
        agent, _ = await a_working_agent(bus)
        reply = await beat(bus, agent, {"step": "tests"})
        await beat(bus, agent)

        found = await bus.call(GetAgent(id=agent.id))
        assert (found.last_progress_at, found.progress) == (reply.server_time, {"step": "tests"})
        assert (await outbox.types())[-1] == "agent.running"

    async def test_another_interval(self, bus: Bus) -> None:
        agent = await an_agent(bus)
        await bus.call(UpdateAgent(id=agent.id, heartbeat_interval_s=60))
        reply = await beat(bus, agent)
        assert reply.lease_expires_at == reply.server_time + timedelta(minutes=3)

    async def test_it_learns_that_it_should_end(self, bus: Bus) -> None:
        agent, _ = await a_working_agent(bus)
        await bus.call(RequestAgentCancel(id=agent.id))
        assert (await beat(bus, agent)).cancel_requested

    async def test_of_a_finished_agent_nothing_is_expected(self, bus: Bus) -> None:
        agent, _ = await a_working_agent(bus)
        await bus.call(FinishAgent(id=agent.id))
        reply = await beat(bus, agent)
        found = await bus.call(GetAgent(id=agent.id))
        assert found.lease_expires_at is reply.lease_expires_at is None
        assert found.last_heartbeat_at == reply.server_time

    async def test_of_an_old_incarnation(self, bus: Bus) -> None:
        agent = await end(bus, await an_agent(bus))
        resumed = await bus.call(ResumeAgent(id=agent.id))

        with pytest.raises(StaleIncarnation) as refused:
            await beat(bus, agent, {"step": "late"})

        assert (refused.value.incarnation, refused.value.current_incarnation) == (1, 2)
        assert await bus.call(GetAgent(id=agent.id)) == resumed

    async def test_after_its_end(self, bus: Bus) -> None:
        agent = await end(bus, await an_agent(bus))
        with pytest.raises(InvalidTransition) as refused:
            await beat(bus, agent)
        assert refused.value.from_ == "stopped"

    async def test_many_share_a_transaction(
        self, bus: Bus, statements: Statements, outbox: Outbox
    ) -> None:
        agents = [await an_agent(bus) for _ in range(40)]

        with statements() as counted:
            await asyncio.gather(*(beat(bus, agent) for agent in agents))

        written = [sql for sql in counted.texts if "UPDATE agents.agents" in sql]
        assert 1 <= len(written) < len(agents) / 2
        assert set(await outbox.types()) == {"agent.registered"}


class TestSuspectAgent:
    async def test_those_behind_a_connection(self, bus: Bus, outbox: Outbox) -> None:
        one = await an_agent(bus, connection_name="worker-3")
        other = await an_agent(bus, connection_name="worker-3")
        await an_agent(bus, connection_name="worker-4")

        suspected = await suspect(bus, one)

        assert {agent.id for agent in suspected} == {one.id, other.id}
        assert all(agent.suspected_at == agent.updated_at for agent in suspected)
        assert await outbox.count("agent.suspected") == 2
        listed = (await bus.call(ListAgents(suspected=True))).items
        assert {agent.id for agent in listed} == {one.id, other.id}

    async def test_again_changes_nothing(self, bus: Bus, outbox: Outbox) -> None:
        agent = await an_agent(bus)
        suspected = await suspect(bus, agent)
        assert await suspect(bus, agent) == suspected
        assert await outbox.count("agent.suspected") == 1

    async def test_an_unknown_name(self, bus: Bus, statements: Statements) -> None:
        with statements() as counted:
            assert (await bus.call(SuspectAgent(connection_name="browser"))).agents == []
        assert len([sql for sql in counted.texts if "agents.agents" in sql]) == 1

    async def test_nothing_is_expected_of_it(self, bus: Bus) -> None:
        finished, _ = await a_working_agent(bus)
        await bus.call(FinishAgent(id=finished.id))
        stopped = await end(bus, await an_agent(bus))
        assert [await suspect(bus, agent) for agent in (finished, stopped)] == [[], []]


class TestReinstateAgent:
    async def test_nothing_speaks_against_it(self, bus: Bus, outbox: Outbox) -> None:
        agent = await an_agent(bus)
        await suspect(bus, agent)

        [there] = await reinstate(bus, agent)

        assert (there.suspected_at, there.version) == (None, 3)
        assert (await outbox.types())[-1] == "agent.reconnected"

    async def test_without_suspicion_nothing_changes(self, bus: Bus, outbox: Outbox) -> None:
        agent = await an_agent(bus)
        assert await reinstate(bus, agent) == []
        assert await outbox.count() == 1


class TestHeartbeatUnderSuspicion:
    async def test_one_that_was_under_way_clears_nothing(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        agent = await an_agent(bus)
        await suspect(bus, agent)
        await later(db, timedelta(minutes=-1), "suspected_at")  # young for as long as this takes
        suspected = await bus.call(GetAgent(id=agent.id))

        reply = await beat(bus, agent)

        found = await bus.call(GetAgent(id=agent.id))
        assert (found.suspected_at, found.version) == (suspected.suspected_at, 2)
        assert found.lease_expires_at == reply.lease_expires_at
        assert await outbox.data("agent.reconnected") == []

    async def test_a_later_one_clears_it(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        agent = await an_agent(bus)
        await suspect(bus, agent)
        await later(db, timedelta(seconds=1), *TIMES)

        reply = await beat(bus, agent)

        found = await bus.call(GetAgent(id=agent.id))
        assert (found.suspected_at, found.version) == (None, 3)
        assert found.lease_expires_at == reply.lease_expires_at
        assert await outbox.count("agent.reconnected") == 1


class TestExpireAgentLeases:
    async def test_silent_agents_crash(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox, sweep: Sweep
    ) -> None:
        silent, [task] = await a_working_agent(bus)
        idle = await an_agent(bus)
        waiting = await ask(bus, (await a_working_agent(bus))[0])
        await later(db, OVER, *TIMES)
        alive, _ = await a_working_agent(bus)

        assert await sweep("expire_agent_leases") == 3
        assert await sweep("expire_agent_leases") == 0

        crashed = {silent.id, idle.id, waiting.id}
        found = (await bus.call(ListAgents(status="crashed"))).items
        assert {agent.id for agent in found} == crashed
        assert (await bus.call(GetAgent(id=alive.id))).status == "running"
        assert (await bus.call(GetTask(id=task.id))).status == "pending"
        events = await outbox.data("agent.crashed")
        assert {event["cause"] for event in events} == {"lease_expired"}

    async def test_who_beats_lives(self, bus: Bus, db: AsyncConnection, sweep: Sweep) -> None:
        agent = await an_agent(bus)
        for _ in range(5):
            await later(db, LEASE - timedelta(seconds=5), *TIMES)
            assert await sweep("expire_agent_leases") == 0
            await beat(bus, agent)

    async def test_nothing_is_expected_of_a_finished_one(
        self, bus: Bus, db: AsyncConnection, sweep: Sweep
    ) -> None:
        agent, _ = await a_working_agent(bus)
        await bus.call(FinishAgent(id=agent.id))
        await later(db, OVER, *TIMES)
        assert await sweep("expire_agent_leases") == 0

    @pytest.mark.parametrize("table", ["agents.agents", "planning.tasks"])
    async def test_one_at_which_somebody_works_is_passed_over(
        self, bus: Bus, db: AsyncConnection, database_url: str, table: str, sweep: Sweep
    ) -> None:
        agent, [task] = await a_working_agent(bus)
        other = await an_agent(bus)
        await later(db, OVER, *TIMES)
        id_ = agent.id if table == "agents.agents" else task.id
        engine = create_async_engine(driver_url(database_url))
        async with engine.connect() as holder:
            await holder.execute(
                text(f"SELECT FROM {table} WHERE id = :id FOR UPDATE"), {"id": id_}
            )
            assert await sweep("expire_agent_leases") == 1
        await engine.dispose()

        assert (await bus.call(GetAgent(id=other.id))).status == "crashed"
        assert (await bus.call(GetAgent(id=agent.id))).status == "running"
        assert await sweep("expire_agent_leases") == 1


class TestTellStalledAgents:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"stall_after": 600.0})

    async def test_once_per_stall(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox, sweep: Sweep
    ) -> None:
        agent, [task] = await a_working_agent(bus)
        await an_agent(bus)
        assert await sweep("tell_stalled_agents") == 0

        for progress in (None, {"step": "tests"}):
            await beat(bus, agent, progress)
            await later(db, timedelta(seconds=601), "last_progress_at")
            assert await sweep("tell_stalled_agents") == 1
            assert await sweep("tell_stalled_agents") == 0

        found = await bus.call(GetAgent(id=agent.id))
        assert (found.status, found.task_id) == ("running", task.id)
        assert found.stalled_at is not None
        assert await outbox.count("agent.stalled") == 2

    async def test_beginning_is_progress(self, bus: Bus, db: AsyncConnection, sweep: Sweep) -> None:
        agent, _ = await a_working_agent(bus)
        await later(db, timedelta(days=1), "last_progress_at")
        assert await sweep("tell_stalled_agents") == 1
        await end(bus, agent)

        resumed = await bus.call(ResumeAgent(id=agent.id))

        assert (resumed.stalled_at, resumed.last_progress_at) == (None, resumed.updated_at)
        assert await sweep("tell_stalled_agents") == 0


async def test_without_the_setting_nobody_stalls(
    bus: Bus, db: AsyncConnection, sweep: Sweep
) -> None:
    await a_working_agent(bus)
    await later(db, timedelta(days=365), "last_progress_at")
    assert await sweep("tell_stalled_agents") == 0
