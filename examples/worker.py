"""Gives each ready task to a command, on its standard input: ``python worker.py URL COMMAND…``."""  # noqa: INP001  a script, not a package

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from contextlib import suppress

from fleetbus.client import CancelRequested, TaskLost, WorkingAgent, connect

HEARTBEAT = int(os.environ.get("HEARTBEAT_SECONDS", "10"))


async def run(command: tuple[str, ...], prompt: str) -> tuple[int, bytes]:
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
    try:
        output, _ = await process.communicate(prompt.encode())
        return await process.wait(), output
    finally:
        if process.returncode is None:
            process.kill()  # the task was lost, or the agent is to end


async def main(nats_url: str, *command: str) -> None:
    async def work(agent: WorkingAgent) -> None:
        async for task in agent.tasks(lease_seconds=3 * HEARTBEAT):
            with suppress(TaskLost), task:  # a lost task is somebody else's
                status, output = await run(command, task.description or task.name)
                if status == 0:
                    await task.complete(output)  # the kit makes any output storable
                else:
                    agent.log(output)
                    await task.block(f"{command[0]} ended with status {status}.")

    async with connect(nats_url) as bus:
        await bus.work(work, heartbeat_interval_s=HEARTBEAT)  # if considered crashed, it comes back


if __name__ == "__main__":
    with suppress(CancelRequested):
        asyncio.run(main(*sys.argv[1:]))
