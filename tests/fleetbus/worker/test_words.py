"""What a task leaves behind is stored, or something of it that says where the rest is."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from nats.errors import MaxPayloadError

from bus.contract.errors import FieldError, InvalidRequest
from contracts.agents.agents import FinishAgent, Heartbeat, ResumeAgent
from contracts.agents.log_chunks import ListLogChunks
from contracts.planning.tasks import BlockTask, CompleteTask, Task
from fleetbus.client import Bus, WorkingAgent
from fleetbus.client.hand import TaskInHand
from fleetbus.importing.present import all_of
from tests.fleetbus.client.test_storable import objects
from tests.fleetbus.worker.arrange import PATIENCE, a_task, now, run, stored, until

CUT = "cut: "

TOO_MUCH = InvalidRequest(errors=[FieldError(field="result", message="is too large")])

ESCAPES = "\x1b" * 170_000
"""Fits its field as text, and no message as JSON."""


async def log_of(bus: Bus, agent: WorkingAgent) -> str:
    """What the agent has said in its log, after it has ended."""
    chunks = await all_of(bus, ListLogChunks(agent_id=agent.id))
    return "".join(chunk.content for chunk in chunks)


async def done_with(
    bus: Bus, say: Callable[[TaskInHand], Awaitable[Task]]
) -> tuple[Task, list[dict[str, Any]]]:
    """A task of which an agent said this, and the log of the agent as objects."""
    task = await a_task(bus)

    async def body(agent: WorkingAgent) -> None:
        await say(await anext(agent.tasks()))

    agent, error = await run(bus, body)
    assert error is None
    log = await log_of(bus, agent)
    return await now(bus, task), [json.loads(line) for line in log.splitlines()]


class RefusingBus(Bus):
    """The service would take less than was said; `refusal` is how it says so."""

    refusal: Exception
    most: int

    async def call(self, operation: Any, **options: Any) -> Any:
        if isinstance(operation, CompleteTask | BlockTask | FinishAgent):
            size = len(operation.model_dump_json().encode())
            if size > self.most:
                raise self.refusal
        return await super().call(operation, **options)


class TestComplete:
    async def test_characters_that_cannot_be_stored(self, bus: Bus) -> None:
        task, log = await done_with(
            bus, lambda mine: mine.complete("ok\0done", {"half": "\ud800", "n": float("nan")})
        )
        assert (task.status, task.summary) == ("completed", "ok\ufffddone")
        assert task.result == {"half": "\ufffd", "n": "NaN"}
        assert log == []

    async def test_what_is_too_long_is_in_the_log(self, bus: Bus) -> None:
        said = "line\n" * 300_000
        task, log = await done_with(bus, lambda mine: mine.complete(said))
        assert task.summary is not None
        assert task.summary.endswith(" of 1,500,000 characters; more of it is in the agent's log")
        assert log == [{"task": str(task.id), "attempt": 1, "summary": said}]

    @pytest.mark.parametrize("made", [ESCAPES, list(range(90_000))], ids=["escapes", "many"])
    async def test_a_result_that_is_too_large_is_in_the_log(self, bus: Bus, made: object) -> None:
        task, log = await done_with(bus, lambda mine: mine.complete("Done.", made))
        assert (task.status, task.summary) == ("completed", "Done.")
        assert isinstance(task.result, dict)
        assert str(task.result["fleetbus"]).endswith("; more of it is in the agent's log")
        assert log == [{"task": str(task.id), "attempt": 1, "result": made}]

    @pytest.mark.parametrize("refusal", [TOO_MUCH, MaxPayloadError()], ids=["refused", "payload"])
    async def test_what_is_refused_for_its_size_is_said_in_fewer_words(
        self, bus: Bus, refusal: Exception
    ) -> None:
        task = await a_task(bus)
        async with bus.agent() as agent:
            mine = await anext(agent.tasks())
            refusing = RefusingBus(agent.bus.nats, timeout=10, attempt_timeout=5)
            refusing.refusal, refusing.most = refusal, 3_000
            mine._bus = refusing
            await mine.complete("s" * 10_000, {"r": "t" * 10_000})
        after = await now(bus, task)
        assert (after.status, after.attempt) == ("completed", 1)
        assert CUT in (after.summary or "")
        assert CUT in str(after.result)
        said = [json.loads(line) for line in (await log_of(bus, agent)).splitlines()]
        assert [line.get("summary") or line.get("result") for line in said] == [
            "s" * 10_000,
            {"r": "t" * 10_000},
        ]


class TestBlock:
    @pytest.mark.parametrize(
        ("said", "reason"),
        [
            (ValueError("no\0\ud800"), "ValueError: no\ufffd\ufffd"),
            (b"\xff", "\ufffd"),
            ("  ", "No reason was given."),
            (None, "None"),
        ],
    )
    async def test_reasons_of_all_kinds(self, bus: Bus, said: object, reason: str) -> None:
        task, _ = await done_with(bus, lambda mine: mine.block(said))
        assert (task.status, task.blocked_reason) == ("blocked", reason)

    async def test_a_long_reason_is_in_the_log(self, bus: Bus) -> None:
        task, [line] = await done_with(bus, lambda mine: mine.block("why " * 1_000))
        assert CUT in (task.blocked_reason or "")
        assert line["reason"] == "why " * 1_000


class TestRelease:
    async def test_a_reason_that_cannot_be_stored(self, bus: Bus) -> None:
        task, _ = await done_with(bus, lambda mine: mine.release(OSError("\0")))
        assert task.status == "pending"


class TestOfTheAgent:
    async def test_progress_that_cannot_be_stored(self, bus: Bus) -> None:
        async with bus.agent() as agent:
            agent.progress({"screen": "\0", "at": {1.5, float("inf")}, 7: b"\xff"})
            await agent.confirm()
            told = (await stored(bus, agent)).progress
        assert told is not None
        assert told["screen"] == told["7"] == "\ufffd"
        assert set(told["at"]) == {1.5, "Infinity"}  # type: ignore[arg-type]  # it is a list

    async def test_progress_that_is_too_large(self, bus: Bus) -> None:
        async with bus.agent() as agent:
            agent.progress({"screen": ESCAPES})
            await agent.confirm()
            told = (await stored(bus, agent)).progress
        assert told is not None
        assert str(told["fleetbus"]).startswith(CUT)

    async def test_progress_that_is_refused_is_given_up_and_the_agent_lives(
        self, bus: Bus, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        request = Bus.request

        async def refuse(self: Bus, operation: Any, **options: Any) -> Any:
            if isinstance(operation, Heartbeat) and operation.progress is not None:
                raise TOO_MUCH
            return await request(self, operation, **options)

        monkeypatch.setattr(Bus, "request", refuse)
        async with bus.agent() as agent:
            agent.progress({"step": 1})
            async with asyncio.timeout(PATIENCE):
                await agent.confirm()
            assert (await stored(bus, agent)).progress is None

    async def test_the_log_takes_whatever_is_said(self, bus: Bus) -> None:
        async def body(agent: WorkingAgent) -> None:
            agent.log(b"\xff\0")
            agent.log(ValueError("\ud800"))

        agent, error = await run(bus, body)
        assert error is None
        assert await log_of(bus, agent) == "\ufffd\ufffd\nValueError: \ufffd\n"

    async def test_a_result_of_its_own(self, bus: Bus) -> None:
        async def body(agent: WorkingAgent) -> None:
            await agent.finish({"nan": float("nan"), "text": "\0"})

        agent, error = await run(bus, body)
        assert error is None
        assert (await stored(bus, agent)).result == {"nan": "NaN", "text": "\ufffd"}

    async def test_what_it_crashed_by(self, bus: Bus) -> None:
        async def body(_: WorkingAgent) -> None:
            raise ValueError("\0\ud800" + "x" * 10_000)

        agent, error = await run(bus, body)
        assert isinstance(error, ValueError)
        assert (await stored(bus, agent)).status == "crashed"
        line = json.loads(await log_of(bus, agent))
        assert line["reason"] == "ValueError: \ufffd\ufffd" + "x" * 10_000

    @pytest.mark.parametrize(
        ("asked", "count"),
        [([{"question": "\0?"}], 1), (["Why?"], 1), (["Why?"] * 150, 100), (["x" * 90_000] * 9, 9)],
    )
    async def test_questions_of_all_kinds(self, bus: Bus, asked: list[object], count: int) -> None:
        async with bus.agent() as agent:
            asking = asyncio.create_task(agent.ask(asked))

            async def waits() -> bool:
                return (await stored(bus, agent)).status == "waiting_for_input"

            await until(waits)
            assert len((await stored(bus, agent)).pending_questions or []) == count
            await bus.call(ResumeAgent(id=agent.id, answers={"a": "b"}))
            assert await asyncio.wait_for(asking, PATIENCE) == {"a": "b"}


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(made=objects, said=objects)
async def test_no_result_costs_the_work(bus: Bus, made: object, said: object) -> None:
    task = await a_task(bus)
    async with bus.agent() as agent:
        mine = await anext(agent.tasks())
        await mine.complete(said, made)
    after = await now(bus, task)
    assert (after.status, after.attempt, after.retry_count) == ("completed", 1, 0)
