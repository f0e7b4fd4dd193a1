"""Agents that are killed, frozen, silent, or back in time.

``FLEETBUS_TEST_SLOW=1`` kills more of them and holds the delays against what is promised.
"""

import logging
import os
import signal
import statistics

import pytest

from contracts.agents.agents import AgentCrashed, AgentReconnected, AgentSuspected
from contracts.planning.tasks import AcceptLateResult, ClaimTasks, CreateTask, GetTask
from fleetbus.client import Bus, connect
from fleetbus.server.config import Settings
from tests.fleetbus.detector.working import (
    GRACE,
    History,
    is_unharmed,
    living,
    take_out_of_the_way,
    task_of,
    working,
)

log = logging.getLogger(__name__)

SLOW = bool(os.environ.get("FLEETBUS_TEST_SLOW"))
KILLS = 50 if SLOW else 5

ALWAYS = GRACE + (0.5 if SLOW else 20)
USUALLY = GRACE + (0.15 if SLOW else 10)
"""Seconds from SIGKILL to the event; what is promised holds on a machine that is not busy."""

LEASE_NOTICED = 1 if SLOW else 20
"""Seconds from the end of a lease to the event, by the same measure."""


class TestKilled:
    async def test_its_task_is_tried_again_at_once(
        self, bus: Bus, nats_url: str, told: History
    ) -> None:
        delays = []
        for _ in range(KILLS):
            async with working(bus, nats_url) as worker:
                killed_at = worker.send(signal.SIGKILL)
                delays.append(await told.when(AgentCrashed, worker.agent) - killed_at)

            task = await task_of(bus, worker)
            assert (task.status, task.retry_count) == ("pending", 1)
            [crashed] = told.of(AgentCrashed, worker.agent)
            assert (crashed.cause, crashed.tasks[0].id) == ("disconnected", worker.task)
            await take_out_of_the_way(bus)

        log.info("crashed after %s ms", sorted(round(delay * 1000) for delay in delays))
        assert len(told.of(AgentSuspected)) == len(told.of(AgentCrashed)) == KILLS
        assert min(delays) >= GRACE
        assert statistics.median(delays) < USUALLY
        assert max(delays) < ALWAYS

    async def test_after_three_retries_a_person_looks(
        self, bus: Bus, nats_url: str, told: History
    ) -> None:
        task = await bus.call(CreateTask(name="deadly"))
        lost = []
        for _ in range(4):
            async with working(bus, nats_url, task=task) as worker:
                worker.send(signal.SIGKILL)
                await told.when(AgentCrashed, worker.agent)
            [crashed] = told.of(AgentCrashed, worker.agent)
            lost += [(one.outcome, one.retry_count) for one in crashed.tasks]

        assert lost == [("retried", 1), ("retried", 2), ("retried", 3), ("blocked", 3)]
        blocked = await bus.call(GetTask(id=task.id))
        assert blocked.status == "blocked"
        assert blocked.blocked_reason == "It was lost 4 times; its agent crashed in attempt 4."
        assert (await bus.call(ClaimTasks(agent_id="another"))).tasks == []


class TestFrozen:
    @pytest.mark.parametrize(
        ("interval", "cause"),
        [
            (1, "lease_expired"),
            pytest.param(
                10,
                "disconnected",  # the server's pings, each 5 s, find out after 10 to 15 s
                marks=pytest.mark.skipif(not SLOW, reason="takes 15 s, FLEETBUS_TEST_SLOW is 0"),
            ),
        ],
    )
    async def test_its_late_result_is_kept(
        self, bus: Bus, nats_url: str, told: History, interval: int, cause: str
    ) -> None:
        async with working(bus, nats_url, interval=interval) as worker:
            worker.send(signal.SIGSTOP)
            await told.when(AgentCrashed, worker.agent)
            assert told.of(AgentCrashed, worker.agent)[0].cause == cause
            [claim] = (await bus.call(ClaimTasks(agent_id="another"))).tasks
            assert (claim.task.id, claim.task.attempt) == (worker.task, 2)

            worker.send(signal.SIGCONT)
            assert await worker.complete() == "refused, the task is with another"

        [late] = (await task_of(bus, worker)).late_results
        assert (late.attempt, late.summary) == (1, "late")
        accepted = await bus.call(AcceptLateResult(id=worker.task, attempt=1))
        assert (accepted.status, accepted.summary) == ("completed", "late")
        assert len(told.of(AgentCrashed)) == 1


class TestSilent:
    async def test_a_connection_is_no_sign_of_life(
        self, bus: Bus, nats_url: str, told: History
    ) -> None:
        async with working(bus, nats_url, interval=0) as worker:
            at = await told.when(AgentCrashed, worker.agent)

        [crashed] = told.of(AgentCrashed)
        assert crashed.cause == "lease_expired"
        assert told.of(AgentSuspected) == []
        last_heard = crashed.agent.last_progress_at.timestamp()
        assert 3 < at - last_heard < 3 + LEASE_NOTICED


class TestBackInTime:
    async def test_nothing_speaks_against_it_any_more(
        self, bus: Bus, nats_url: str, told: History
    ) -> None:
        async with living(nats_url) as (agent, _):
            pass
        await told.when(AgentSuspected, agent)
        async with connect(nats_url, agent=agent):
            await told.when(AgentReconnected, agent)

            # One that goes now has its grace after the other one's.
            async with living(nats_url) as (other, _):
                pass
            await told.when(AgentCrashed, other)
            assert told.of(AgentCrashed, agent) == []
            assert await is_unharmed(bus, agent)

    async def test_one_of_two_connections_is_enough(
        self, bus: Bus, nats_url: str, told: History
    ) -> None:
        """It is known as there when the server is asked, before anything is done to it."""
        async with living(nats_url) as (agent, _):
            async with connect(nats_url, agent=agent):
                pass
            await told.when(AgentSuspected, agent)
            await told.when(AgentReconnected, agent)
            assert await is_unharmed(bus, agent)


class TestBackLongBeforeTheGraceIsOver:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"suspicion_grace": 3600.0})

    async def test_it_is_told_at_once(self, bus: Bus, nats_url: str, told: History) -> None:
        async with living(nats_url, interval=60) as (agent, _):
            pass
        await told.when(AgentSuspected, agent)
        async with connect(nats_url, agent=agent):
            await told.when(AgentReconnected, agent)
            assert await is_unharmed(bus, agent)


class TestWithoutTheSystemAccount:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"nats_system_url": None})

    async def test_leases_alone_tell(self, bus: Bus, nats_url: str, told: History) -> None:
        async with working(bus, nats_url, interval=1) as worker:
            worker.send(signal.SIGKILL)
            await told.when(AgentCrashed, worker.agent)

        [crashed] = told.of(AgentCrashed)
        assert crashed.cause == "lease_expired"
        assert told.of(AgentSuspected) == []
