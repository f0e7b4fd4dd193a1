"""What tests of the worker kit start from, and how they look at what became of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import nats
from nats.aio.msg import Msg

from bus.kit.nats_io import flush
from contracts.agents.agents import Agent, GetAgent
from contracts.planning.tasks import CreateTask, GetTask, Task
from fleetbus.client import Bus, WorkingAgent

PATIENCE = 30.0
"""Seconds within which even a very busy machine gets there."""


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a condition that nothing tells of."""
    async with asyncio.timeout(PATIENCE):
        while not await true():  # noqa: ASYNC110  there is nothing to wait for
            await asyncio.sleep(0.02)


async def run(
    bus: Bus, body: Callable[[WorkingAgent], Awaitable[object]], **registration: Any
) -> tuple[WorkingAgent, Exception | None]:
    """An agent with this as the body of its block, and what the block was left by."""
    async with asyncio.timeout(PATIENCE):
        try:
            async with bus.agent(**registration) as agent:
                await body(agent)
        except Exception as error:  # noqa: BLE001  whatever it is, the test looks at it
            return agent, error
        return agent, None


async def for_ever(_: WorkingAgent) -> None:
    await asyncio.Event().wait()


async def stored(bus: Bus, agent: WorkingAgent) -> Agent:
    return await bus.call(GetAgent(id=agent.id))


async def a_task(bus: Bus, name: str = "a task", **fields: Any) -> Task:
    return await bus.call(CreateTask(name=name, **fields))


async def now(bus: Bus, task: Task) -> Task:
    return await bus.call(GetTask(id=task.id))


@asynccontextmanager
async def silence(url: str, subject: str) -> AsyncIterator[list[Msg]]:
    """Beside the service somebody else takes some of its requests, and does not answer."""
    client = await nats.connect(url)
    taken: list[Msg] = []

    async def take(message: Msg) -> None:
        taken.append(message)

    try:
        await client.subscribe(subject, queue="fleetbus", cb=take)
        await flush(client)
        yield taken
    finally:
        await client.close()
