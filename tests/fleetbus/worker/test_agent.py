"""An agent from its registration to its last words."""

import asyncio
import contextlib
import os
import socket

import pytest

from bus.contract.errors import AlreadyExists, InvalidTransition
from bus.kit.ids import uuid7
from bus.running.registry import Registry
from contracts.agents.agents import (
    CrashAgent,
    FindAgent,
    RegisterAgent,
    RequestAgentCancel,
    ResumeAgent,
    StopAgent,
    SuspectAgent,
)
from fleetbus.client import AgentLost, Bus, CancelRequested, TaskLost, WorkingAgent, connect
from fleetbus.client.registration import Registration
from fleetbus.server.config import Settings
from fleetbus.server.service import Service
from tests.fleetbus.worker.arrange import (
    PATIENCE,
    a_task,
    for_ever,
    now,
    run,
    silence,
    stored,
    until,
)
from tests.kit.outbox import Outbox


class TestRegistration:
    async def test_a_new_agent_says_which_process_it_is(self, bus: Bus) -> None:
        async with bus.agent(name="otter", provider="test", heartbeat_interval_s=7) as agent:
            there = await stored(bus, agent)

        assert (there.name, there.provider, there.heartbeat_interval_s) == ("otter", "test", 7)
        assert (there.pid, there.host) == (os.getpid(), socket.gethostname())
        assert (there.status, there.incarnation) == ("idle", 1)

    async def test_its_connection_has_its_id_as_name(self, bus: Bus) -> None:
        async with bus.agent() as agent:
            assert agent.bus.nats is not bus.nats
            assert agent.bus.nats.options["name"] == str(agent.id)
            assert (await stored(bus, agent)).connection_name == str(agent.id)
        assert agent.bus.nats.is_closed
        assert bus.nats.is_connected

    async def test_a_connection_that_was_made_for_it_is_used(self, bus: Bus, nats_url: str) -> None:
        assert bus.nats.is_connected
        id_ = uuid7()
        async with connect(nats_url, agent=id_) as its:
            async with its.agent() as agent:
                assert (agent.id, agent.bus) == (id_, its)
            assert its.nats.is_connected
            async with its.agent(id=uuid7()) as other:
                assert other.bus is not its

    async def test_one_that_ended_comes_back_as_the_next_incarnation(self, bus: Bus) -> None:
        async with bus.agent(name="otter") as first:
            pass
        async with bus.agent(id=first.id, session_id="s-2") as second:
            there = await stored(bus, second)

        assert (second.id, second.name, second.incarnation) == (first.id, "otter", 2)
        assert (there.status, there.pid, there.session_id) == ("running", os.getpid(), "s-2")
        assert there.connection_name == str(first.id)

    async def test_one_that_runs_is_not_taken_over(self, bus: Bus) -> None:
        async with bus.agent() as agent:
            await a_task(bus)
            await anext(agent.tasks())
            with pytest.raises(InvalidTransition, match=r"running, not stopped or crashed"):
                await bus.agent(id=agent.id).__aenter__()
            assert (await stored(bus, agent)).incarnation == 1

    async def test_a_name_that_is_taken_is_refused(self, bus: Bus) -> None:
        await bus.call(RegisterAgent(name="otter"))
        with pytest.raises(AlreadyExists):
            await bus.agent(name="otter").__aenter__()

    def test_all_that_an_agent_can_say_of_itself_can_be_said(self) -> None:
        by_the_kit = {"connection_name"}
        assert Registration.__annotations__.keys() == RegisterAgent.model_fields.keys() - by_the_kit

    async def test_needs_a_bus_that_can_connect(self, bus: Bus) -> None:
        other = Bus(bus.nats, timeout=1, attempt_timeout=1)
        with pytest.raises(RuntimeError, match="connect"):
            await other.agent().__aenter__()


class TestHeartbeats:
    async def test_go_on_while_the_block_awaits(self, bus: Bus) -> None:
        async with bus.agent(heartbeat_interval_s=1) as agent:
            heard = set()

            async def three_times() -> bool:
                heard.add((await stored(bus, agent)).last_heartbeat_at)
                return len(heard - {None}) >= 3

            await until(three_times)
            assert (await stored(bus, agent)).version == 1

    async def test_carry_the_last_progress_only(self, bus: Bus) -> None:
        async with bus.agent(heartbeat_interval_s=1) as agent:
            agent.progress({"step": 1})
            agent.progress({"step": 2})

            async def told() -> bool:
                return (await stored(bus, agent)).progress is not None

            await until(told)
            assert (await stored(bus, agent)).progress == {"step": 2}

    async def test_progress_that_was_not_told_is_told_at_the_end(self, bus: Bus) -> None:
        async with bus.agent(heartbeat_interval_s=3600) as agent:
            agent.progress({"step": "last"})
        assert (await stored(bus, agent)).progress == {"step": "last"}

    async def test_progress_that_is_no_object_becomes_one(self, bus: Bus) -> None:
        async with bus.agent() as agent:
            agent.progress(["no", "object"])
            await agent.confirm()
            assert (await stored(bus, agent)).progress == {"value": ["no", "object"]}

    async def test_one_without_an_answer_is_sent_again_before_the_lease_is_over(
        self, bus: Bus, nats_url: str
    ) -> None:
        async with (
            silence(nats_url, "db.agents.heartbeat") as taken,
            bus.agent(heartbeat_interval_s=2) as agent,
        ):

            async def lost_some_and_heard() -> bool:
                return len(taken) >= 2 and (await stored(bus, agent)).last_heartbeat_at is not None

            await until(lost_some_and_heard)
        keyed = [message for message in taken if "Nats-Msg-Id" in (message.headers or {})]
        assert keyed == [], "a stored reply prolongs nothing"

    async def test_a_suspected_agent_says_that_it_lives(self, bus: Bus, outbox: Outbox) -> None:
        async with bus.agent(heartbeat_interval_s=3600) as agent:
            await bus.call(SuspectAgent(connection_name=str(agent.id)))
            assert (await stored(bus, agent)).suspected_at is not None

            async def cleared() -> bool:
                return (await stored(bus, agent)).suspected_at is None

            await until(cleared)


MARK = " … cut: 1,933 of 5,012 characters; more of it is in the agent's log"


class TestEnding:
    async def test_normally_it_is_stopped(self, bus: Bus, outbox: Outbox) -> None:
        async with bus.agent() as agent:
            pass
        assert (await stored(bus, agent)).status == "stopped"
        assert (await outbox.last("agent.stopped")).data["reason"] == "task_complete"

    async def test_by_an_exception_it_is_crashed_and_the_exception_goes_on(
        self, bus: Bus, outbox: Outbox
    ) -> None:
        with pytest.raises(KeyError, match="missing"):
            async with bus.agent() as agent:
                raise KeyError("missing")
        assert (await stored(bus, agent)).status == "crashed"
        told = (await outbox.last("agent.crashed")).data
        assert (told["cause"], told["reason"]) == ("reported", "KeyError: 'missing'")

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (ValueError(), "ValueError"),
            (ValueError("\x00\ud800"), "ValueError: \ufffd\ufffd"),
            (
                ValueError("x" * 5_000),
                f"ValueError: {'x' * 1_921}{MARK}",
            ),
        ],
    )
    async def test_any_exception_can_be_told(
        self, error: Exception, reason: str, bus: Bus, outbox: Outbox
    ) -> None:
        with pytest.raises(ValueError):  # noqa: PT011  its text is what is tested
            async with bus.agent():
                raise error
        assert (await outbox.last("agent.crashed")).data["reason"] == reason

    async def test_cancelled_it_is_stopped(self, bus: Bus, outbox: Outbox) -> None:
        async def be_cancelled(agent: WorkingAgent) -> None:
            async with asyncio.timeout(PATIENCE):
                task = asyncio.current_task()
                assert task is not None
                task.get_loop().call_soon(task.cancel)
                await for_ever(agent)

        running = asyncio.create_task(run(bus, be_cancelled, name="otter"))
        await asyncio.wait([running])
        assert running.cancelled()
        there = await bus.call(FindAgent(name="otter"))
        assert there.status == "stopped"
        assert (await outbox.last("agent.stopped")).data["reason"] == "interrupted"

    async def test_cancelled_again_it_still_says_so(self, bus: Bus) -> None:
        there = asyncio.Event()
        known = []

        async def work() -> None:
            async with bus.agent() as agent:
                known.append(agent)
                there.set()
                await asyncio.Event().wait()

        working = asyncio.create_task(work())
        await asyncio.wait_for(there.wait(), PATIENCE)
        for _ in range(5):
            working.cancel()
            await asyncio.sleep(0.001)
        await asyncio.wait([working])
        assert working.cancelled()
        assert (await stored(bus, known[0])).status == "stopped"

    async def test_finished_it_stays_with_its_result(self, bus: Bus) -> None:
        async with bus.agent() as agent:
            agent.progress({"step": "last"})
            await agent.finish({"merged": True})
            there = await stored(bus, agent)
            assert (there.status, there.result) == ("idle", {"merged": True})
        there = await stored(bus, agent)
        assert (there.status, there.lease_expires_at) == ("idle", None)
        assert there.progress == {"step": "last"}

    async def test_finished_it_has_no_task_any_more(self, bus: Bus) -> None:
        task = await a_task(bus)
        async with bus.agent() as agent:
            mine = await anext(agent.tasks())
            await agent.finish()
            assert mine.settled
            assert (await now(bus, task)).status == "pending"
            with pytest.raises(TaskLost):
                await mine.complete("too late")
        late = (await now(bus, task)).late_results
        assert [one.summary for one in late] == ["too late"]

    async def test_where_nobody_hears_it_that_is_said(
        self, settings: Settings, registry: Registry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("fleetbus.client.agent.ENDING_SECONDS", 0.5)

        async def left_alone(bus: Bus, *, error: Exception | None) -> Exception | None:
            service = Service(settings, registry)
            await service.start()

            async def body(_: WorkingAgent) -> None:
                assert await service.stop()
                if error is not None:
                    raise error

            return (await run(bus, body))[1]

        async with connect(settings.nats_url) as bus:
            assert isinstance(await left_alone(bus, error=None), TimeoutError)
            assert isinstance(await left_alone(bus, error=KeyError()), KeyError)

    async def test_its_tasks_go_back_to_the_queue(self, bus: Bus) -> None:
        task = await a_task(bus)
        async with bus.agent() as agent:
            mine = await anext(agent.tasks())
        assert mine.id == task.id
        after = await now(bus, task)
        assert (after.status, after.claimed_by, after.retry_count) == ("pending", None, 0)


class TestCancelRequests:
    async def test_end_the_block_soon(self, bus: Bus, outbox: Outbox) -> None:
        async def ask_to_end(agent: WorkingAgent) -> None:
            await bus.call(RequestAgentCancel(id=agent.id))
            await for_ever(agent)

        agent, error = await run(bus, ask_to_end, heartbeat_interval_s=3600)

        assert isinstance(error, CancelRequested)
        assert agent.cancel_requested
        assert (await stored(bus, agent)).status == "stopped"
        assert (await outbox.last("agent.stopped")).data["reason"] == "user_requested"

    async def test_a_block_that_ends_by_itself_then_is_stopped_for_it(
        self, bus: Bus, outbox: Outbox
    ) -> None:
        async def end_by_itself(agent: WorkingAgent) -> None:
            await bus.call(RequestAgentCancel(id=agent.id))
            with contextlib.suppress(asyncio.CancelledError):
                await for_ever(agent)
            assert agent.cancel_requested

        _, error = await run(bus, end_by_itself, heartbeat_interval_s=3600)

        assert error is None
        assert (await outbox.last("agent.stopped")).data["reason"] == "user_requested"


class TestLost:
    @pytest.mark.parametrize(
        "by", [CrashAgent(id=uuid7(), reason="gone"), StopAgent(id=uuid7(), reason="error")]
    )
    async def test_ended_by_somebody_else(self, by: CrashAgent | StopAgent, bus: Bus) -> None:
        async def be_ended(agent: WorkingAgent) -> None:
            await bus.call(by.model_copy(update={"id": agent.id}))
            await for_ever(agent)

        agent, error = await run(bus, be_ended, heartbeat_interval_s=3600)

        assert isinstance(error, AgentLost)
        assert isinstance(error.__cause__, InvalidTransition)
        assert error.agent_id == agent.id

    async def test_come_back_as_another_process(
        self, bus: Bus, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(WorkingAgent, "listen", _deaf)

        async def be_succeeded(agent: WorkingAgent) -> None:
            await bus.call(CrashAgent(id=agent.id, reason="gone"))
            await bus.call(ResumeAgent(id=agent.id))
            await for_ever(agent)

        agent, error = await run(bus, be_succeeded, heartbeat_interval_s=1)

        assert isinstance(error, AgentLost)
        assert "incarnation 2, not 1" in str(error)
        assert (await stored(bus, agent)).status == "running", "the new one is left alone"

    async def test_found_out_while_it_ends(self, bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(WorkingAgent, "listen", _deaf)
        _, error = await run(bus, self.crash, heartbeat_interval_s=3600)
        assert isinstance(error, AgentLost)

    async def test_an_exception_of_its_own_is_more_important(self, bus: Bus) -> None:
        async def fail(agent: WorkingAgent) -> None:
            await self.crash(agent)
            raise KeyError

        _, error = await run(bus, fail, heartbeat_interval_s=3600)
        assert isinstance(error, KeyError)

    async def crash(self, agent: WorkingAgent) -> None:
        await agent.bus.call(CrashAgent(id=agent.id, reason="gone"))


async def _deaf(_: WorkingAgent) -> None:
    """Hear of no event."""
