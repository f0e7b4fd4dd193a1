"""The `nats` command line tool, as anyone who runs the service would use it."""

import asyncio
import json
import shutil
from typing import Any

import pytest

from contracts.planning.tasks import CreateTask, Task
from fleetbus.client import Bus
from fleetbus.server.service import Service

pytestmark = [
    pytest.mark.cli,
    pytest.mark.skipif(shutil.which("nats") is None, reason="the nats CLI is not installed"),
]

MISSING = "01990000-0000-7000-8000-000000000001"


class Cli:
    """The tool, talking to the test's NATS account."""

    def __init__(self, url: str, home: str) -> None:
        self._url = url
        # A context that the developer has selected must not take part.
        self._environment = {"HOME": home, "XDG_CONFIG_HOME": home, "PATH": ""}

    async def start(self, *arguments: str, timeout: str = "5s") -> asyncio.subprocess.Process:  # noqa: ASYNC109  the tool's own
        return await asyncio.create_subprocess_exec(
            str(shutil.which("nats")),
            "--server",
            self._url,
            f"--timeout={timeout}",
            *arguments,
            env=self._environment,
            # Without a payload it would read standard input to its end.
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def __call__(self, *arguments: str, timeout: str = "5s") -> str:  # noqa: ASYNC109  as above
        process = await self.start(*arguments, timeout=timeout)
        return await output_of(process)

    async def json(self, *arguments: str) -> Any:
        return json.loads(await self(*arguments, "--json"))


async def output_of(process: asyncio.subprocess.Process) -> str:
    output, errors = await asyncio.wait_for(process.communicate(), timeout=30)
    assert process.returncode == 0, errors.decode()
    return output.decode()


@pytest.fixture
def nats_cli(service: Service, nats_url: str, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    return Cli(nats_url, str(tmp_path_factory.mktemp("home")))


async def create(bus: Bus) -> Task:
    return await bus.call(CreateTask(name="Wave", category="execute"))


class TestMicro:
    async def test_ls(self, nats_cli: Cli, service: Service) -> None:
        listed = await nats_cli.json("micro", "ls")
        contexts = [context.name for context in service.registry.catalogue.contexts]
        assert sorted(found["name"] for found in listed) == sorted(contexts)
        assert "planning" in await nats_cli("micro", "ls")

    async def test_info(self, nats_cli: Cli) -> None:
        shown = await nats_cli.json("micro", "info", "planning")
        endpoints = {endpoint["name"]: endpoint for endpoint in shown["info"]["endpoints"]}
        assert endpoints["tasks_get"]["subject"] == "db.tasks.get"
        assert endpoints["tasks_get"]["metadata"]["kind"] == "query"
        assert "tasks_get" in await nats_cli("micro", "info", "planning")

    async def test_stats(self, nats_cli: Cli) -> None:
        await nats_cli("req", "db.tasks.get", json.dumps({"id": MISSING}))
        [stats] = await nats_cli.json("micro", "stats", "planning")
        [figures] = [e for e in stats["endpoints"] if e["name"] == "tasks_get"]
        assert (figures["num_requests"], figures["num_errors"]) == (1, 1)
        assert "tasks_get" in await nats_cli("micro", "stats", "planning")

    async def test_ping(self, nats_cli: Cli) -> None:
        assert "planning" in await nats_cli("micro", "ping", timeout="1s")

    async def test_request(self, nats_cli: Cli, bus: Bus) -> None:
        task = await create(bus)
        answer = await nats_cli(
            "micro", "request", "planning", "tasks_get", json.dumps({"id": str(task.id)}), "--raw"
        )
        assert json.loads(answer)["name"] == "Wave"


class TestRequest:
    async def test_reply(self, nats_cli: Cli, bus: Bus) -> None:
        task = await create(bus)
        answer = await nats_cli("req", "db.tasks.get", json.dumps({"id": str(task.id)}), "--raw")
        assert json.loads(answer)["id"] == str(task.id)

    async def test_refusal(self, nats_cli: Cli) -> None:
        answer = await nats_cli("req", "db.tasks.get", json.dumps({"id": MISSING}), "--raw")
        assert json.loads(answer)["type"] == "task_not_found"

    async def test_empty_body(self, nats_cli: Cli) -> None:
        answer = await nats_cli("req", "db.meta.operations", "", "--raw")
        assert "db.tasks.get" in {item["subject"] for item in json.loads(answer)["items"]}

    async def test_headers(self, nats_cli: Cli) -> None:
        body = json.dumps({"name": "Wave", "category": "execute"})
        arguments = ("req", "db.tasks.create", body, "--raw", "-H", "Nats-Msg-Id:wave-1")
        assert await nats_cli(*arguments) == await nats_cli(*arguments)


class TestEvents:
    async def test_sub(self, nats_cli: Cli, bus: Bus) -> None:
        watching = await nats_cli.start("sub", "events.task.created.*", "--count=1", "--raw")
        # When the tool has subscribed it does not say on a pipe; what comes later is seen.
        while watching.returncode is None:
            await create(bus)
            await asyncio.sleep(0.2)
        assert json.loads(await output_of(watching))["task"]["name"] == "Wave"

    async def test_stream_and_consumer(self, nats_cli: Cli, bus: Bus) -> None:
        await nats_cli("consumer", "add", "EVENTS", "waves", "--pull", "--defaults")
        await create(bus)

        event = await nats_cli("consumer", "next", "EVENTS", "waves", "--raw")
        info = await nats_cli.json("stream", "info", "EVENTS")

        assert json.loads(event)["task"]["name"] == "Wave"
        assert info["config"]["subjects"] == ["events.>"]
        assert info["state"]["messages"] >= 1
        assert (await nats_cli.json("consumer", "info", "EVENTS", "waves"))["name"] == "waves"
