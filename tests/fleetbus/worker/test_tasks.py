"""Tasks as an agent gets them, keeps them, loses them and gives them back."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from contracts.agents.agents import CrashAgent
from contracts.planning.tasks import (
    AddTaskDependency,
    ClaimTasks,
    CompleteTask,
    ReleaseTask,
    Task,
)
from fleetbus.client import AgentLost, Bus, NoAnswer, TaskLost, WorkingAgent
from fleetbus.client.hand import TaskInHand
from fleetbus.client.tasks import Tasks
from tests.fleetbus.worker.arrange import PATIENCE, a_task, for_ever, now, run, until


@pytest.fixture
def _no_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only events wake an idle agent."""
    monkeypatch.setattr("fleetbus.client.tasks.POLL_FIRST", 3600.0)
    monkeypatch.setattr("fleetbus.client.tasks.POLL_MOST", 3600.0)


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set when an agent has found nothing to claim, and waits."""
    waits = asyncio.Event()
    wait = Tasks._wait

    async def wait_and_tell(tasks: Tasks, most: float) -> None:
        waits.set()
        await wait(tasks, most)

    monkeypatch.setattr(Tasks, "_wait", wait_and_tell)
    return waits


async def first(agent: WorkingAgent, **wanted: Any) -> TaskInHand:
    async with asyncio.timeout(PATIENCE):
        return await anext(agent.tasks(**wanted))


class TestVerdicts:
    async def test_complete(self, bus: Bus) -> None:
        task = await a_task(bus, "Write it", description="At length.")
        async with bus.agent() as agent:
            mine = await first(agent)
            assert (mine.name, mine.description, mine.attempt) == ("Write it", "At length.", 1)
            assert (await now(bus, task)).claimed_by == str(agent.id)
            assert (await mine.complete("Done.", {"words": 7})).status == "completed"
        after = await now(bus, task)
        assert (after.status, after.summary, after.result) == ("completed", "Done.", {"words": 7})

    async def test_block(self, bus: Bus) -> None:
        task = await a_task(bus)
        async with bus.agent() as agent:
            await (await first(agent)).block("No paper.")
        after = await now(bus, task)
        assert (after.status, after.blocked_reason) == ("blocked", "No paper.")

    async def test_release(self, bus: Bus) -> None:
        task = await a_task(bus)
        async with bus.agent() as agent:
            await (await first(agent)).release("Too tired.")
            assert (await now(bus, task)).status == "pending"

    async def test_what_is_known_of_it_comes_with_the_claim(self, bus: Bus) -> None:
        done = await a_task(bus, "before", status="completed", summary="It was easy.")
        task = await a_task(bus)
        await bus.call(AddTaskDependency(id=task.id, depends_on_task_id=done.id))
        async with bus.agent() as agent:
            mine = await first(agent)
            assert [one.summary for one in mine.dependencies] == ["It was easy."]
            assert (mine.phase, mine.initiative) == (None, None)

    async def test_the_same_verdict_again_is_given_once(self, bus: Bus) -> None:
        await a_task(bus)
        async with bus.agent() as agent:
            mine = await first(agent)
            assert await mine.complete("Done.") == await mine.complete("Done.")

    async def test_one_without_a_word_is_released_when_the_next_is_asked_for(
        self, bus: Bus, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("fleetbus.client.tasks.POLL_FIRST", 0.01)
        task = await a_task(bus)
        attempts = []
        async with asyncio.timeout(PATIENCE), bus.agent() as agent:
            async for mine in agent.tasks():
                attempts.append(mine.attempt)
                if len(attempts) == 3:
                    break
        assert attempts == [1, 2, 3]
        assert (await now(bus, task)).retry_count == 0

    async def test_by_an_exception_it_is_tried_again_by_somebody(self, bus: Bus) -> None:
        task = await a_task(bus)

        async def fail(agent: WorkingAgent) -> None:
            async for _ in agent.tasks():
                raise KeyError

        _, error = await run(bus, fail)
        assert isinstance(error, KeyError)
        after = await now(bus, task)
        assert (after.status, after.retry_count) == ("pending", 1)


class TestWaiting:
    @pytest.mark.usefixtures("_no_polls")
    async def test_an_event_wakes_it(self, bus: Bus, idle: asyncio.Event) -> None:
        async with bus.agent() as agent:
            waiting = asyncio.create_task(first(agent))
            await asyncio.wait_for(idle.wait(), PATIENCE)
            task = await a_task(bus)
            assert (await waiting).id == task.id

    @pytest.mark.usefixtures("_no_polls")
    async def test_an_event_of_what_it_does_not_want_does_not(
        self, bus: Bus, idle: asyncio.Event
    ) -> None:
        async with bus.agent() as agent, bus.events() as events:
            tasks = agent.tasks(categories=["review"])
            waiting = asyncio.ensure_future(anext(tasks))
            await asyncio.wait_for(idle.wait(), PATIENCE)
            await a_task(bus, category="execute")
            await anext(events)
            await agent.confirm()
            assert not tasks._changed.is_set()
            task = await a_task(bus, category="review")
            assert (await asyncio.wait_for(waiting, PATIENCE)).id == task.id

    async def test_without_events_it_looks_all_the_same(
        self, bus: Bus, idle: asyncio.Event, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("fleetbus.client.tasks.CLAIMABLE", ())
        monkeypatch.setattr("fleetbus.client.tasks.POLL_FIRST", 0.01)
        async with bus.agent() as agent:
            waiting = asyncio.create_task(first(agent))
            await asyncio.wait_for(idle.wait(), PATIENCE)
            task = await a_task(bus)
            assert (await waiting).id == task.id

    async def test_it_ends_when_it_was_idle_for_long_enough(self, bus: Bus) -> None:
        for name in "ab":
            await a_task(bus, name)
        done = []
        async with asyncio.timeout(PATIENCE), bus.agent() as agent:
            async for task in agent.tasks(idle_seconds=0.1):
                await task.complete()
                done.append(task.name)
        assert done == ["a", "b"]

    async def test_a_claim_without_an_answer_is_asked_for_until_it_is_known(self, bus: Bus) -> None:
        """Whether the first attempt claimed something cannot be known; the key finds it out."""
        await a_task(bus)
        async with bus.agent() as agent:
            _lose_first_answer(agent, lambda _: asyncio.sleep(0))
            assert (await first(agent)).attempt == 1

    async def test_what_was_claimed_so_and_lost_meanwhile_is_not_begun(self, bus: Bus) -> None:
        await a_task(bus)

        async def take_away(claimed: Task) -> None:
            await bus.call(ReleaseTask(id=claimed.id, attempt=1, reason="Give it to me."))

        async with bus.agent() as agent:
            _lose_first_answer(agent, take_away)
            assert (await first(agent)).attempt == 2


class TestLeases:
    async def test_are_renewed_at_a_third(self, bus: Bus) -> None:
        task = await a_task(bus)
        async with bus.agent() as agent:
            mine = await first(agent, lease_seconds=3)
            at_first = mine.task.lease_expires_at

            async def renewed() -> bool:
                lease = (await now(bus, task)).lease_expires_at
                return at_first is not None and lease is not None and lease > at_first

            await until(renewed)
            await mine.complete()

    async def test_a_lost_task_ends_its_block_and_the_agent_goes_on(self, bus: Bus) -> None:
        """The task is taken away by somebody while it is worked on."""
        task = await a_task(bus)
        async with asyncio.timeout(PATIENCE), bus.agent() as agent:
            tasks = agent.tasks(lease_seconds=1)
            mine = await anext(tasks)
            with contextlib.suppress(TaskLost), mine:
                await bus.call(ReleaseTask(id=task.id, attempt=1, reason="Give it to me."))
                await asyncio.Event().wait()
            assert isinstance(mine.lost, TaskLost)
            again = await anext(tasks)
            assert (again.id, again.attempt) == (task.id, 2)
            await again.complete()

    async def test_outside_of_such_a_block_it_ends_the_agents(self, bus: Bus) -> None:
        task = await a_task(bus)

        async def lose(agent: WorkingAgent) -> None:
            async for _ in agent.tasks(lease_seconds=1):
                await bus.call(CompleteTask(id=task.id))
                await for_ever(agent)

        _, error = await run(bus, lose)
        assert isinstance(error, TaskLost)
        assert error.task_id == task.id

    async def test_a_result_that_comes_too_late_is_kept_and_told_to_be_late(self, bus: Bus) -> None:
        task = await a_task(bus)
        async with bus.agent() as agent:
            mine = await first(agent)
            await bus.call(ReleaseTask(id=task.id, attempt=1, reason="Give it to me."))
            with pytest.raises(TaskLost):
                await mine.complete("Too late.")
            with pytest.raises(TaskLost), mine:
                pytest.fail("a lost task has no block")
        late = (await now(bus, task)).late_results
        assert [one.summary for one in late] == ["Too late."]

    async def test_its_own_verdict_is_no_loss(self, bus: Bus) -> None:
        """A renewal that arrives just after the completion is refused, and that means nothing."""
        await a_task(bus)
        async with bus.agent() as agent:
            mine = await first(agent, lease_seconds=300)
            with mine:
                mine._deciding = True
                await bus.call(CompleteTask(id=mine.id, attempt=mine.attempt))
                await mine.renew()
                mine._deciding = False
            assert mine.lost is None

    async def test_an_agent_that_is_lost_claims_nothing_any_more(
        self, bus: Bus, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It may learn that it lost its task before it learns that it is held for crashed."""
        monkeypatch.setattr(WorkingAgent, "listen", _deaf)
        task = await a_task(bus)

        async def be_slow(agent: WorkingAgent) -> None:
            async for mine in agent.tasks():
                with contextlib.suppress(TaskLost):
                    await bus.call(CrashAgent(id=agent.id, reason="It seemed so."))
                    await mine.complete()

        _, error = await run(bus, be_slow, heartbeat_interval_s=3600)
        assert isinstance(error, AgentLost)
        after = await now(bus, task)
        assert (after.status, after.attempt, after.retry_count) == ("pending", 1, 1)

    async def test_an_agent_that_was_silent_asks_before_it_claims(
        self, bus: Bus, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(WorkingAgent, "listen", _deaf)
        task = await a_task(bus)

        async def freeze(agent: WorkingAgent) -> None:
            await bus.call(CrashAgent(id=agent.id, reason="It seemed so."))
            agent._heart._heard -= 3 * 3600
            await anext(agent.tasks())

        _, error = await run(bus, freeze, heartbeat_interval_s=3600)
        assert isinstance(error, AgentLost)
        assert (await now(bus, task)).attempt == 0


async def _deaf(_: WorkingAgent) -> None:
    """Hear of no event."""


def _lose_first_answer(agent: WorkingAgent, then: Callable[[Task], Awaitable[None]]) -> None:
    """The first claim takes effect, and nobody learns of it."""
    ask = agent.bus.request

    async def ask_in_vain(operation: Any, **options: Any) -> Any:
        answered = await ask(operation, **options)
        if isinstance(operation, ClaimTasks):
            agent.bus.request = ask  # type: ignore[method-assign]  # only once
            await then(answered.reply.tasks[0].task)
            raise NoAnswer
        return answered

    agent.bus.request = ask_in_vain  # type: ignore[method-assign]  # the wire loses it
