"""Servers and handler processes go and come back: no agent is taken for crashed by mistake."""

import asyncio
import signal
from contextlib import AsyncExitStack

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.kit.aio import end
from bus.running.registry import Registry
from contracts.agents.agents import AgentCrashed, AgentReconnected, AgentSuspected
from contracts.planning.tasks import ClaimTasks, CompleteTask, CreateTask
from fleetbus.client import connect
from fleetbus.embedded.nats import EmbeddedNats
from tests.bus.asking import eventually
from tests.bus.outages import serving
from tests.bus.test_restarts import Fleet, fleet
from tests.fleetbus.detector.working import (
    GRACE,
    RECONNECT_TIME,
    history,
    is_unharmed,
    living,
    take_out_of_the_way,
    task_of,
    working,
)

AGENTS = 20
KILLS = 5


def heard(nats: EmbeddedNats) -> dict[str, object]:
    return {
        "nats_system_url": nats.system_url,
        "suspicion_grace": GRACE,
        "reconnect_time": RECONNECT_TIME,
    }


class TestNatsRestarts:
    async def test_all_go_on(
        self, own_nats: EmbeddedNats, database_url: str, registry: Registry
    ) -> None:
        async with (
            serving(registry, database_url, own_nats.url, **heard(own_nats)) as service,
            connect(own_nats.url, timeout=60, attempt_timeout=1) as bus,
            AsyncExitStack() as stack,
        ):
            for number in range(AGENTS):
                await bus.call(CreateTask(name=f"task {number}"))
            agents = [await stack.enter_async_context(living(own_nats.url)) for _ in range(AGENTS)]
            claims = [
                (await own.call(ClaimTasks(agent_id=str(agent)))).tasks[0].task
                for agent, own in agents
            ]

            for go in (own_nats.kill, own_nats.stop):
                await go()
                await eventually(lambda: not service.client.is_connected)
                await own_nats.start()
                await eventually(lambda: service.client.is_connected, within=30)
                # Crashes are told again, and by then those before would have been.
                async with living(own_nats.url) as (other, _):
                    pass
                async with history(bus) as told:
                    await told.when(AgentCrashed, other)

            for (_, own), task in zip(agents, claims, strict=True):
                done = await own.call(CompleteTask(id=task.id, attempt=task.attempt))
                assert done.status == "completed"
            assert len(told.of(AgentCrashed)) == 2
            assert all([await is_unharmed(bus, agent) for agent, _ in agents])

    async def test_who_was_suspected_before_has_time_to_come_back(
        self, own_nats: EmbeddedNats, database_url: str, db: AsyncConnection, registry: Registry
    ) -> None:
        given = heard(own_nats) | {"reconnect_time": 30.0}
        async with (
            serving(registry, database_url, own_nats.url, **given) as service,
            connect(own_nats.url, timeout=60, attempt_timeout=1) as bus,
        ):
            async with living(own_nats.url, interval=60) as (agent, _):
                pass
            await eventually(lambda: _suspected_for(db, 0))
            await own_nats.kill()
            await own_nats.start()
            await eventually(lambda: service.client.is_connected, within=30)
            await eventually(lambda: _suspected_for(db, 4 * GRACE), within=30)

            async with connect(own_nats.url, agent=agent), history(bus) as told:
                await told.when(AgentReconnected, agent)
                assert told.of(AgentCrashed) == []


class TestHandlersRestart:
    async def test_in_turn_while_agents_are_killed(
        self, nats_server: EmbeddedNats, database_url: str, nats_url: str
    ) -> None:
        given = {f"FLEETBUS_{name.upper()}": str(v) for name, v in heard(nats_server).items()}
        async with (
            fleet(database_url, nats_url, 2, **given) as processes,
            connect(nats_url, timeout=60, attempt_timeout=1) as bus,
            history(bus) as told,
            AsyncExitStack() as stack,
        ):
            others = [await stack.enter_async_context(living(nats_url)) for _ in range(5)]
            restarting = asyncio.create_task(_replace(processes))
            killed = []
            for _ in range(KILLS):
                async with working(bus, nats_url) as worker:
                    worker.send(signal.SIGKILL)
                    await told.when(AgentCrashed, worker.agent)
                assert (await task_of(bus, worker)).status == "pending"
                await take_out_of_the_way(bus)
                killed.append(worker.agent)
            await end(restarting)

            assert [event.agent.id for event in told.of(AgentCrashed)] == killed
            assert {event.cause for event in told.of(AgentCrashed)} == {"disconnected"}
            assert [event.agent.id for event in told.of(AgentSuspected)] == killed
            assert all([await is_unharmed(bus, agent) for agent, _ in others])

    async def test_what_nobody_heard_is_looked_up(
        self, nats_server: EmbeddedNats, database_url: str, nats_url: str, registry: Registry
    ) -> None:
        given = heard(nats_server)
        async with connect(nats_url) as bus:
            async with serving(registry, database_url, nats_url, **given):
                worker = await (stack := AsyncExitStack()).enter_async_context(
                    working(bus, nats_url)
                )
            await stack.aclose()
            assert worker.process.returncode == -signal.SIGKILL
            async with (
                serving(registry, database_url, nats_url, **given),
                history(bus) as told,
            ):
                await told.when(AgentCrashed, worker.agent)
                assert [event.cause for event in told.of(AgentCrashed)] == ["disconnected"]


async def _suspected_for(db: AsyncConnection, seconds: float) -> bool:
    age = text(
        "SELECT extract(epoch FROM clock_timestamp() - min(suspected_at)) FROM agents.agents"
    )
    found = (await db.execute(age)).scalar_one()
    return found is not None and found >= seconds


async def _replace(processes: Fleet) -> None:
    """Restart them in turn, for ever."""
    while True:
        assert await processes.replace_oldest(signal.SIGTERM) == 0
