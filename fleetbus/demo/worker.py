"""A worker, as one writes it for oneself: claim, keep the lease, do the work, complete.

    python -m fleetbus.demo.worker nats://127.0.0.1:4222 worker-1

It ends when nothing is left that it could do.
"""

import asyncio
import random
import sys
from collections.abc import Iterable
from typing import get_args

from contracts.planning.tasks import (
    ClaimTasks,
    CompleteTask,
    GetTaskQueue,
    RenewTask,
    StaleAttempt,
    Task,
    TaskCategory,
    TaskCompleted,
    TaskId,
    TaskReady,
)
from fleetbus.client import Bus, connect

LEASE_SECONDS = 15
"""A worker that is gone for as long as this loses its tasks to the others."""

IDLE_SECONDS = 0.5

CATEGORIES = list(get_args(TaskCategory))


async def run_worker(bus: Bus, name: str, *, work: tuple[float, float] = (0.05, 0.3)) -> int:
    """Work until nothing is left; answers with the number of tasks completed.

    `work` is how long one task takes, in seconds: at least, and at most.
    """
    completed = 0
    changed = asyncio.Event()
    listener = asyncio.create_task(_listen(bus, changed))
    try:
        while True:
            changed.clear()
            if tasks := await _claim(bus, name):
                completed += await _do_all(bus, name, tasks, work)
            elif not await _happens(changed) and await _nothing_to_wait_for(bus):
                return completed
    finally:
        listener.cancel()


async def _listen(bus: Bus, changed: asyncio.Event) -> None:
    """Wake the worker when there may be something to claim; it need not ask all the time."""
    async for _ in bus.events(TaskReady, TaskCompleted):
        changed.set()


async def _happens(changed: asyncio.Event) -> bool:
    """Wait for a change; False if none came in time, as when the fleet has nothing left to do."""
    try:
        await asyncio.wait_for(changed.wait(), IDLE_SECONDS)
    except TimeoutError:
        return False
    return True


async def _claim(bus: Bus, name: str) -> list[Task]:
    claimed = await bus.call(
        ClaimTasks(
            agent_id=name,
            categories=CATEGORIES,
            limit=random.randint(1, 3),  # noqa: S311  some workers take more at once
            lease_seconds=LEASE_SECONDS,
        )
    )
    return [claim.task for claim in claimed.tasks]


async def _do_all(bus: Bus, name: str, tasks: Iterable[Task], work: tuple[float, float]) -> int:
    """Do the claimed tasks one after the other, keeping the leases of all of them."""
    mine = {task.id: task for task in tasks}
    completed = 0
    keeper = asyncio.create_task(_keep_leases(bus, mine))
    try:
        for task in list(mine.values()):
            if task.id not in mine:
                continue
            # The pause stands for the work: an agent would write code here, for minutes or hours.
            await asyncio.sleep(random.uniform(*work))  # noqa: S311  not a secret
            mine.pop(task.id, None)
            completed += await _complete(bus, name, task)
    finally:
        keeper.cancel()
    return completed


async def _keep_leases(bus: Bus, mine: dict[TaskId, Task]) -> None:
    """Renew often enough that two renewals may fail; what is lost is dropped."""
    while True:
        for task in list(mine.values()):
            try:
                await bus.call(
                    RenewTask(id=task.id, attempt=task.attempt, lease_seconds=LEASE_SECONDS)
                )
            except StaleAttempt:
                mine.pop(task.id, None)
        await asyncio.sleep(LEASE_SECONDS / 3)


async def _complete(bus: Bus, name: str, task: Task) -> bool:
    request = CompleteTask(
        id=task.id, attempt=task.attempt, summary=f"{name} did: {task.name}", result={"by": name}
    )
    try:
        await bus.call(request)
    except StaleAttempt:
        return False  # it came too late and is kept with the task, for a person to look at
    return True


async def _nothing_to_wait_for(bus: Bus) -> bool:
    queue = await bus.call(GetTaskQueue())
    return queue.ready == queue.in_progress == 0


async def main() -> None:
    url, name = sys.argv[1:]
    async with connect(url, name=name) as bus:
        await run_worker(bus, name)


if __name__ == "__main__":
    asyncio.run(main())
