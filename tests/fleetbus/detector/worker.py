"""An agent as a process of its own, for tests that kill it.

    python -m tests.fleetbus.detector.worker nats://127.0.0.1:4222 <agent id> <heartbeat interval>

It claims one task and says so; on the line ``complete`` it completes it and says what came of it.
Zero seconds between heartbeats are one heartbeat at the start and none after it.
"""

import asyncio
import sys
from uuid import UUID

from bus.contract.refusals import Refusal
from contracts.agents.agents import Heartbeat, RegisterAgent
from contracts.planning.tasks import ClaimTasks, CompleteTask, StaleAttempt
from fleetbus.client import Bus, connect


async def main(url: str, agent: UUID, interval: int) -> None:
    async with connect(url, agent=agent) as bus:
        await bus.call(RegisterAgent(id=agent, heartbeat_interval_s=interval or 1))
        beating = asyncio.create_task(beat(bus, agent, interval))
        claimed = await bus.call(ClaimTasks(agent_id=str(agent)))
        task = claimed.tasks[0].task
        say(f"working on {task.id}")
        while await asyncio.to_thread(sys.stdin.readline):
            try:
                await bus.call(CompleteTask(id=task.id, attempt=task.attempt, summary="late"))
            except StaleAttempt as refused:
                say(f"refused, the task is with {refused.claimed_by}")
            else:
                say("completed the task")
        beating.cancel()


async def beat(bus: Bus, agent: UUID, interval: int) -> None:
    while interval:
        await asyncio.sleep(interval)
        try:
            await bus.call(Heartbeat(id=agent, incarnation=1))
        except Refusal:
            return  # it is taken for crashed


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], UUID(sys.argv[2]), int(sys.argv[3])))
