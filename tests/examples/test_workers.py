"""The workers among the examples, each in a process of its own, against a running service."""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import pytest

from contracts.agents.agents import Agent, ListAgents, RequestAgentCancel
from contracts.agents.log_chunks import ListLogChunks
from contracts.planning.tasks import CreateTask, GetTask, Task
from fleetbus.client import Bus
from fleetbus.importing.present import all_of

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
NODE_MODULES = ROOT / "tests" / "node" / "node_modules"

PATIENCE = 60.0

WORK = 'if grep -q impossible; then exit 7; fi; printf "well \\"done\\"\\nat\\tlast\\n"'
"""What the workers are given to do: one task ends badly, the others well."""

SAID = 'well "done"\nat\tlast'

Command = Callable[[Path], list[str | Path]]


def python(_: Path) -> list[str | Path]:
    return [sys.executable, EXAMPLES / "worker.py"]


def shell(_: Path) -> list[str | Path]:
    return ["sh", EXAMPLES / "worker.sh"]


def node(directory: Path) -> list[str | Path]:
    (directory / "node_modules").symlink_to(NODE_MODULES)
    program = directory / "worker.mjs"
    program.write_text((EXAMPLES / "worker.mjs").read_text())
    return ["node", program]


WORKERS = [
    pytest.param(python, id="python"),
    pytest.param(
        shell,
        id="shell",
        marks=[
            pytest.mark.cli,
            pytest.mark.skipif(not shutil.which("nats"), reason="the nats CLI is not installed"),
        ],
    ),
    pytest.param(
        node,
        id="node",
        marks=[
            pytest.mark.node,
            pytest.mark.skipif(
                not (shutil.which("node") and NODE_MODULES.exists()),
                reason="Node.js is not installed, or npm install was not run in tests/node",
            ),
        ],
    ),
]


@asynccontextmanager
async def started(*command: str | Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that is gone with the block."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ | {"HEARTBEAT_SECONDS": "1"},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def settled(bus: Bus, *tasks: Task) -> list[Task]:
    """These tasks, when each of them has come to an end."""
    async with asyncio.timeout(PATIENCE):
        while True:
            now = [await bus.call(GetTask(id=task.id)) for task in tasks]
            if all(task.status in {"completed", "blocked"} for task in now):
                return now
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("command", WORKERS)
async def test_a_worker_does_what_is_ready_until_it_is_asked_to_end(
    command: Command, bus: Bus, nats_url: str, tmp_path: Path
) -> None:
    names = ("Möglich", "impossible", 'with "quotes"')
    tasks = [await bus.call(CreateTask(name=name)) for name in names]
    async with started(*command(tmp_path), nats_url, "sh", "-c", WORK) as process:
        good, bad, last = await settled(bus, *tasks)
        late = await bus.call(CreateTask(name="Made while it waits"))
        await settled(bus, late)
        [agent] = (await bus.call(ListAgents())).items
        await bus.call(RequestAgentCancel(id=agent.id))
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0

    assert (good.status, last.status) == ("completed", "completed")
    assert [(task.summary or "").rstrip("\n") for task in (good, last)] == [SAID, SAID]
    assert (bad.status, bad.blocked_reason) == ("blocked", "sh ended with status 7.")
    assert {task.attempt for task in (good, bad, last)} == {1}
    [ended] = (await bus.call(ListAgents())).items
    _ended_in_good_order(ended)


@pytest.mark.parametrize("command", WORKERS)
async def test_a_task_is_kept_while_it_is_worked_on_and_given_back_at_the_end(
    command: Command, bus: Bus, nats_url: str, tmp_path: Path
) -> None:
    task = await bus.call(CreateTask(name="Endless"))
    async with started(*command(tmp_path), nats_url, "sleep", "3600") as process:
        leases: set[datetime | None] = set()
        async with asyncio.timeout(PATIENCE):
            while len(leases - {None}) < 3:
                leases.add((await bus.call(GetTask(id=task.id))).lease_expires_at)
                await asyncio.sleep(0.05)
        [agent] = (await bus.call(ListAgents())).items
        await bus.call(RequestAgentCancel(id=agent.id))
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0

    after = await bus.call(GetTask(id=task.id))
    assert (after.status, after.claimed_by, after.retry_count) == ("pending", None, 0)
    [ended] = (await bus.call(ListAgents())).items
    _ended_in_good_order(ended)


OUTPUTS = {
    "nul": r"import sys; sys.stdout.buffer.write(b'ok\0done')",
    "bytes": r"import sys; sys.stdout.buffer.write(b'ok\xffdone')",
    "colours": r"import sys; sys.stdout.buffer.write(b'ok\x1bdone')",
    "long": "print('ok ' + 'x' * 200_000 + ' done')",
    "escapes": "print('ok ' + chr(27) * 100_000 + ' done')",
}


@pytest.mark.parametrize("command", WORKERS)
async def test_whatever_is_printed_the_work_is_not_lost(
    command: Command, bus: Bus, nats_url: str, tmp_path: Path
) -> None:
    program = f"import sys\ntold = sys.stdin.read()\nsay = {OUTPUTS!r}\n"
    program += "exec(next(code for name, code in say.items() if f'say {name}' in told))\n"
    (tmp_path / "say.py").write_text(program)
    tasks = [await bus.call(CreateTask(name=f"say {name}")) for name in OUTPUTS]
    async with started(*command(tmp_path), nats_url, sys.executable, tmp_path / "say.py"):
        done = dict(zip(OUTPUTS, await settled(bus, *tasks), strict=True))
        [agent] = (await bus.call(ListAgents())).items

        async def logged() -> int:
            chunks = await all_of(bus, ListLogChunks(agent_id=agent.id))
            return sum(len(chunk.content) for chunk in chunks)

        async with asyncio.timeout(PATIENCE):
            while await logged() < 300_000:  # noqa: ASYNC110  nothing tells of a log
                await asyncio.sleep(0.05)

    assert {(task.status, task.attempt) for task in done.values()} == {("completed", 1)}
    said = {name: task.summary or "" for name, task in done.items()}
    assert said["nul"] in {"ok\ufffddone", "ok?done"}
    assert said["bytes"] in {"ok\ufffddone", "okdone"}
    assert said["colours"] in {"ok\x1bdone", "ok?done"}
    assert all(" … cut: " in said[name] for name in ("long", "escapes"))
    assert agent.status in {"running", "idle"}


def _ended_in_good_order(agent: Agent) -> None:
    assert (agent.status, agent.incarnation) == ("stopped", 1)
    assert agent.last_heartbeat_at is not None


def test_the_python_worker_is_short() -> None:
    lines = [line for line in (EXAMPLES / "worker.py").read_text().splitlines() if line.strip()]
    assert len(lines) <= 33
