import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta

import pytest

from bus.contract.errors import InvalidTransition
from contracts.agents.agents import (
    DismissAgent,
    FinishAgent,
    GetAgent,
    RequestAgentCancel,
    ResumeAgent,
    StaleIncarnation,
    StopAgent,
)
from contracts.planning.tasks import (
    ClaimTasks,
    CompleteTask,
    GetTask,
    ListTasks,
)
from fleetbus.client import Bus
from tests.agents.arrange import QUESTIONS, a_task, a_working_agent, an_agent, ask, claim, end
from tests.counting import Counted
from tests.kit.outbox import Outbox

Statements = Callable[[], AbstractContextManager[Counted]]


class TestAskInput:
    async def test_it_waits(self, bus: Bus, outbox: Outbox) -> None:
        agent, _ = await a_working_agent(bus)

        waiting = await ask(bus, agent, incarnation=1)

        assert (waiting.status, waiting.pending_questions) == ("waiting_for_input", QUESTIONS)
        assert waiting.lease_expires_at is not None
        assert (await outbox.types())[-1] == "agent.waiting"

    async def test_idle(self, bus: Bus) -> None:
        with pytest.raises(InvalidTransition):
            await ask(bus, await an_agent(bus))

    async def test_of_an_old_incarnation(self, bus: Bus) -> None:
        agent, _ = await a_working_agent(bus)
        with pytest.raises(StaleIncarnation):
            await ask(bus, agent, incarnation=2)


class TestResumeAgent:
    async def test_with_answers_the_same_process_goes_on(self, bus: Bus, outbox: Outbox) -> None:
        agent, [task] = await a_working_agent(bus, pid=4711)
        waiting = await ask(bus, agent)

        resumed = await bus.call(ResumeAgent(id=agent.id, answers={"Which database?": "Postgres"}))

        assert (resumed.status, resumed.incarnation, resumed.pid) == ("running", 1, 4711)
        assert resumed.answers == {"Which database?": "Postgres"}
        assert (resumed.pending_questions, resumed.task_id) == (None, task.id)
        assert resumed.lease_expires_at == waiting.lease_expires_at
        assert (await outbox.data("agent.resumed"))[0]["previous_status"] == "waiting_for_input"

    async def test_after_its_end_as_another_process(self, bus: Bus, outbox: Outbox) -> None:
        agent, _ = await a_working_agent(
            bus, pid=4711, host="a", connection_name="c", session_id="s"
        )
        await bus.call(RequestAgentCancel(id=agent.id))
        await ask(bus, agent)
        await bus.call(StopAgent(id=agent.id, reason="error", exit_code=3))
        await bus.call(DismissAgent(id=agent.id))

        resumed = await bus.call(ResumeAgent(id=agent.id, pid=4712))

        assert (resumed.status, resumed.incarnation) == ("running", 2)
        assert (resumed.pid, resumed.host, resumed.session_id) == (4712, None, "s")
        assert resumed.connection_name == str(agent.id)
        assert (resumed.exit_code, resumed.pending_questions) == (None, None)
        assert (resumed.cancel_requested_at, resumed.dismissed_at) == (None, None)
        assert resumed.lease_expires_at is not None
        assert resumed.lease_expires_at - resumed.updated_at == timedelta(seconds=30)
        assert (await outbox.data("agent.resumed"))[0]["previous_status"] == "stopped"

    async def test_idle_it_begins(self, bus: Bus) -> None:
        agent = await an_agent(bus)
        resumed = await bus.call(ResumeAgent(id=agent.id))
        assert (resumed.status, resumed.incarnation) == ("running", 1)

    async def test_running(self, bus: Bus) -> None:
        agent, _ = await a_working_agent(bus)
        with pytest.raises(InvalidTransition):
            await bus.call(ResumeAgent(id=agent.id))


class TestFinishAgent:
    async def test_nothing_is_expected_of_it(self, bus: Bus, outbox: Outbox) -> None:
        agent, [task] = await a_working_agent(bus)
        await bus.call(CompleteTask(id=task.id, attempt=1))

        finished = await bus.call(FinishAgent(id=agent.id, incarnation=1, result={"merged": True}))

        assert (finished.status, finished.result) == ("idle", {"merged": True})
        assert (finished.lease_expires_at, finished.task_id) == (None, task.id)
        assert (await outbox.types())[-1] == "agent.finished"

    async def test_its_tasks_are_released(self, bus: Bus, outbox: Outbox) -> None:
        agent, tasks = await a_working_agent(bus, 3)
        await bus.call(CompleteTask(id=tasks[0].id, attempt=1))

        await bus.call(FinishAgent(id=agent.id))

        found = [await bus.call(GetTask(id=task.id)) for task in tasks]
        assert [task.status for task in found] == ["completed", "pending", "pending"]
        assert {(task.claimed_by, task.retry_count) for task in found} == {(None, 0)}
        released = ["task.released", "task.released", "task.ready", "task.ready"]
        assert (await outbox.types())[-5:] == ["agent.finished", *released]
        event = (await outbox.data("task.released"))[0]
        assert (event["released_by"], event["reason"]) == (str(agent.id), "agent_finished")
        assert {task.id for task in await claim(bus, agent, 3)} == {task.id for task in tasks[1:]}

    async def test_refused_its_tasks_stay(self, bus: Bus) -> None:
        agent, [task] = await a_working_agent(bus)
        with pytest.raises(StaleIncarnation):
            await bus.call(FinishAgent(id=agent.id, incarnation=2))
        assert await bus.call(GetTask(id=task.id)) == task

    async def test_its_next_task(self, bus: Bus) -> None:
        agent, [task] = await a_working_agent(bus)
        await bus.call(CompleteTask(id=task.id, attempt=1))
        await bus.call(FinishAgent(id=agent.id))
        following = await a_task(bus)

        await claim(bus, agent)

        running = await bus.call(GetAgent(id=agent.id))
        assert (running.status, running.task_id) == ("running", following.id)
        assert running.lease_expires_at is not None

    async def test_idle(self, bus: Bus) -> None:
        with pytest.raises(InvalidTransition):
            await bus.call(FinishAgent(id=(await an_agent(bus)).id))

    async def test_of_an_old_incarnation(self, bus: Bus) -> None:
        agent, _ = await a_working_agent(bus)
        with pytest.raises(StaleIncarnation):
            await bus.call(FinishAgent(id=agent.id, incarnation=2))


class TestStopAgent:
    async def test_its_tasks_are_released(self, bus: Bus, outbox: Outbox) -> None:
        agent, tasks = await a_working_agent(bus, 2)

        stopped = await bus.call(
            StopAgent(id=agent.id, incarnation=1, reason="user_requested", exit_code=0)
        )

        assert (stopped.status, stopped.exit_code) == ("stopped", 0)
        assert stopped.lease_expires_at is None
        for task in tasks:
            released = await bus.call(GetTask(id=task.id))
            assert (released.status, released.retry_count) == ("pending", 0)
        freed = ["task.released", "task.released", "task.ready", "task.ready"]
        assert (await outbox.types())[-5:] == ["agent.stopped", *freed]
        event = (await outbox.data("task.released"))[0]
        assert (event["released_by"], event["reason"]) == (str(agent.id), "user_requested")

    async def test_twice(self, bus: Bus) -> None:
        agent = await an_agent(bus)
        await end(bus, agent)
        with pytest.raises(InvalidTransition):
            await end(bus, agent)

    async def test_of_an_old_incarnation(self, bus: Bus) -> None:
        agent = await an_agent(bus)
        with pytest.raises(StaleIncarnation):
            await bus.call(StopAgent(id=agent.id, incarnation=2, reason="error"))


class TestRequestAgentCancel:
    async def test_asking_again_changes_nothing(self, bus: Bus, outbox: Outbox) -> None:
        agent, _ = await a_working_agent(bus)

        asked = await bus.call(RequestAgentCancel(id=agent.id))

        assert asked.cancel_requested_at == asked.updated_at
        assert await bus.call(RequestAgentCancel(id=agent.id)) == asked
        assert await outbox.count("agent.cancel_requested") == 1

    async def test_after_its_end(self, bus: Bus) -> None:
        agent = await end(bus, await an_agent(bus))
        with pytest.raises(InvalidTransition):
            await bus.call(RequestAgentCancel(id=agent.id))


class TestClaims:
    async def test_an_idle_agent_begins_to_run(self, bus: Bus, outbox: Outbox) -> None:
        agent, tasks = await a_working_agent(bus, 2)

        running = await bus.call(GetAgent(id=agent.id))

        assert (running.status, running.task_id) == ("running", tasks[0].id)
        assert running.last_progress_at is not None
        claims = ["task.claimed", "task.claimed", "agent.running"]
        assert (await outbox.types())[-3:] == claims

    async def test_a_running_one_takes_up_the_next(self, bus: Bus, outbox: Outbox) -> None:
        agent, _ = await a_working_agent(bus)
        following = await a_task(bus)

        await claim(bus, agent)

        running = await bus.call(GetAgent(id=agent.id))
        assert (running.version, running.task_id) == (3, following.id)
        assert (await outbox.types())[-2:] == ["task.claimed", "agent.updated"]

    async def test_one_that_was_dismissed_is_so_no_more(self, bus: Bus) -> None:
        agent = await an_agent(bus)
        await bus.call(DismissAgent(id=agent.id))
        await a_task(bus)

        await claim(bus, agent)

        assert (await bus.call(GetAgent(id=agent.id))).dismissed_at is None

    @pytest.mark.parametrize("ready", [0, 1])
    async def test_one_that_ended_is_refused(self, bus: Bus, outbox: Outbox, ready: int) -> None:
        for _ in range(ready):
            await a_task(bus)
        agent = await end(bus, await an_agent(bus))

        with pytest.raises(InvalidTransition) as refused:
            await claim(bus, agent)

        assert refused.value.from_ == "stopped"
        assert await bus.call(GetAgent(id=agent.id)) == agent
        assert await outbox.data("task.claimed") == []

    async def test_one_of_several_at_once_is_refused_alone(self, bus: Bus) -> None:
        for _ in range(3):
            await a_task(bus)
        ended = await end(bus, await an_agent(bus))
        living = [await an_agent(bus) for _ in range(3)]

        answers = await asyncio.gather(
            *(claim(bus, agent) for agent in [living[0], ended, *living[1:]]),
            return_exceptions=True,
        )

        assert isinstance(answers.pop(1), InvalidTransition)
        assert [len(taken) for taken in answers if isinstance(taken, list)] == [1, 1, 1]

    @pytest.mark.parametrize("ready", [0, 1])
    async def test_of_an_old_incarnation(self, bus: Bus, ready: int) -> None:
        agent = await end(bus, await an_agent(bus))
        await bus.call(ResumeAgent(id=agent.id))
        for _ in range(ready):
            await a_task(bus)

        with pytest.raises(StaleIncarnation):
            await bus.call(ClaimTasks(agent_id=str(agent.id), incarnation=1))

        claimed = await bus.call(ClaimTasks(agent_id=str(agent.id), incarnation=2))
        assert len(claimed.tasks) == ready

    @pytest.mark.parametrize(
        "spelled", [str.upper, lambda id_: id_.replace("-", ""), "{{{}}}".format]
    )
    async def test_an_id_in_any_spelling(self, bus: Bus, spelled: Callable[[str], str]) -> None:
        await a_task(bus)
        agent = await an_agent(bus)

        [claimed] = (await bus.call(ClaimTasks(agent_id=spelled(str(agent.id))))).tasks

        assert claimed.task.claimed_by == str(agent.id)
        listed = await bus.call(ListTasks(claimed_by=spelled(str(agent.id))))
        assert [task.id for task in listed.items] == [claimed.task.id]
        assert (await bus.call(GetAgent(id=agent.id))).status == "running"
        await end(bus, agent)
        assert (await bus.call(GetTask(id=claimed.task.id))).status == "pending"

    async def test_any_other_name_is_not_looked_up(self, bus: Bus, statements: Statements) -> None:
        await a_task(bus)
        for _ in range(2):
            with statements() as counted:
                claimed = await bus.call(ClaimTasks(agent_id="Agent-7"))
            assert {one.task.claimed_by for one in claimed.tasks} <= {"Agent-7"}
            assert [sql for sql in counted.texts if "agents.agents" in sql] == []
