"""A worker of the demo: an agent that claims a task, pretends to work on it, and completes it.

    python -m fleetbus.demo.worker URL NAME ID

It ends when it is asked to. An id of an agent that has ended makes it that agent again.
"""

import argparse
import asyncio
import random
import sys
from collections.abc import Sequence
from typing import get_args
from uuid import UUID

from contracts.planning.tasks import TaskCategory
from fleetbus.client import AgentLost, CancelRequested, TaskLost, WorkingAgent, connect

HEARTBEAT_SECONDS = 2
"""An agent that is silent for three times as long is considered crashed."""

LOST = 3
"""The status of a worker that learns that it is no longer the agent."""

CATEGORIES: Sequence[TaskCategory] = get_args(TaskCategory)

WORK = (0.1, 0.5)
"""How long one task takes, in seconds: at least, and at most."""


async def work_off(
    agent: WorkingAgent, *, work: tuple[float, float] = WORK, idle_seconds: float | None = None
) -> int:
    """Do tasks until there are none for so long; answers with the number of those completed."""
    completed = 0
    async for task in agent.tasks(categories=CATEGORIES, idle_seconds=idle_seconds):
        agent.progress({"task": task.name})
        try:
            with task:
                # The pause stands for the work: an agent would write code here, for hours perhaps.
                await asyncio.sleep(random.uniform(*work))  # noqa: S311  not a secret
                await task.complete(f"{agent.name} did: {task.name}", {"by": agent.name})
                completed += 1
        except TaskLost:
            continue
    return completed


async def main() -> int:
    """Work until asked to end, or until somebody else is this agent."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("name")
    parser.add_argument("id", type=UUID)
    parser.add_argument("--hours", type=float, help="how long each task takes")
    given = parser.parse_args()
    work = WORK if given.hours is None else (given.hours * 3600, given.hours * 3600)
    try:
        async with (
            connect(given.url, agent=given.id) as bus,
            bus.agent(
                name=given.name, provider="demo", heartbeat_interval_s=HEARTBEAT_SECONDS
            ) as agent,
        ):
            await work_off(agent, work=work)
    except CancelRequested:
        return 0
    except AgentLost:
        return LOST
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
