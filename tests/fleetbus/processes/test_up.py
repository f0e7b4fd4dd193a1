"""``fleetbus up``: everything on one machine, and nothing left behind."""

import asyncio
import contextlib
import re
import signal
from pathlib import Path

import psutil
import pytest

from contracts.meta.meta import ListOperations
from contracts.planning.projects import CreateProject, FindProject
from fleetbus.client import connect
from fleetbus.server import migrate
from fleetbus.server.detector.detector import ASK_SUBJECT
from tests.fleetbus.processes.running import Running, running


class TestUp:
    @pytest.mark.alone
    async def test_it_answers_once_it_says_ready(self) -> None:
        async with running("up", "--ephemeral", "--workers", "2") as up:
            async with connect(await _url(up)) as bus:
                assert (await bus.call(ListOperations(), timeout=1)).items
            family = psutil.Process(up.process.pid).children(recursive=True)
            assert len(family) >= 4

            up.send(signal.SIGINT)

            assert await up.ended() == 0
            _, alive = await asyncio.to_thread(psutil.wait_procs, family, timeout=10)
        assert not alive
        assert "Traceback" not in up.output

    async def test_it_hears_of_lost_connections(self, data_dir: Path) -> None:
        async with running("up", "--data-dir", str(data_dir)) as up:
            await up.said("are watched on 1 servers")
            async with connect(await _url(up)) as bus:
                answer = await bus.nats.request(ASK_SUBJECT, timeout=10)
            assert answer.data == b'{"trouble":""}'
            [password] = re.findall(r'user: sys, password: "(.+?)"', _config(data_dir))
            family = psutil.Process(up.process.pid).children(recursive=True)
            assert len(family) >= 3
            assert not any(password in line for line in map(_command_line, family))
        assert password not in up.output

    async def test_data_persists(self, data_dir: Path) -> None:
        where = ("--data-dir", str(data_dir))
        async with running("up", *where) as up, connect(await _url(up)) as bus:
            made = await bus.call(CreateProject(name="kept", url="https://example.org/kept"))
            assert f"{data_dir} is new, at migration {migrate.head()}\n" in up.output
        async with running("up", *where) as up, connect(await _url(up)) as bus:
            assert await bus.call(FindProject(name="kept")) == made
            assert f"{data_dir} is at migration {migrate.head()}, as this version" in up.output

    async def test_a_second_one_on_the_same_directory_says_so(self, data_dir: Path) -> None:
        where = ("--data-dir", str(data_dir))
        async with running("up", *where) as first:
            url = await _url(first)
            async with running("up", *where) as second:
                assert await second.ended() == 1
            assert url in second.output
            assert str(first.process.pid) in second.output
            assert "Traceback" not in second.output

    async def test_a_server_that_dies_is_started_again(self) -> None:
        async with running("up", "--ephemeral") as up, connect(await _url(up)) as bus:
            for name in ("nats-server", "postgres"):
                server = next(
                    child
                    for child in psutil.Process(up.process.pid).children()
                    if child.name() == name
                )
                server.kill()
                await up.said(f"{'NATS' if name == 'nats-server' else 'PostgreSQL'} ended")
                project = CreateProject(name=name, url=f"https://example.org/{name}")
                assert (await bus.call(project)).name == name


def _config(data_dir: Path) -> str:
    return (data_dir / "nats.conf").read_text()


def _command_line(process: psutil.Process) -> str:
    """That of a process; nothing if it has ended meanwhile, as what starts another may."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


async def _url(up: Running) -> str:
    return (await up.said("ready nats://")).removeprefix("ready ").strip()
