"""Two NATS servers: every one of them is heard and asked."""

import asyncio
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from string import Template

import nats
import pytest
from nats.aio.client import Client
from nats.errors import Error as NatsError

from fleetbus.client import connect
from fleetbus.embedded._ports import free_port
from fleetbus.embedded.nats import nats_server_program
from fleetbus.server.detector.advisories import Fact
from fleetbus.server.detector.link import Link
from fleetbus.server.detector.servers import Incomplete, Servers
from fleetbus.server.detector.settings import SystemAccount
from tests.bus.asking import eventually

CONFIG = Template("""
listen: "127.0.0.1:$port"
server_name: "$name"
system_account: SYS
no_auth_user: fleet
accounts {
  SYS { users: [ { user: sys, password: "secret" } ] }
  FLEET { users: [ { user: fleet, password: "known" } ] }
}
cluster { name: pair, listen: "127.0.0.1:$own", routes: [ "nats://127.0.0.1:$other" ] }
""")


@dataclass(frozen=True)
class Server:
    process: asyncio.subprocess.Process
    port: int

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def system_url(self) -> str:
        return f"nats://sys:secret@127.0.0.1:{self.port}"


async def start(directory: Path, name: str, own: int, other: int) -> Server:
    port = free_port()
    config = directory / f"{name}.conf"
    config.write_text(CONFIG.substitute(port=port, name=name, own=own, other=other))
    process = await asyncio.create_subprocess_exec(
        *(nats_server_program(), "--config", config), stderr=asyncio.subprocess.DEVNULL
    )
    return Server(process, port)


@pytest.fixture
async def pair(data_dir: Path) -> AsyncIterator[tuple[Server, Server]]:
    routes = free_port(), free_port()
    servers = (
        await start(data_dir, "first", *routes),
        await start(data_dir, "second", *reversed(routes)),
    )
    try:
        yield servers
    finally:
        for server in servers:
            if server.process.returncode is None:
                server.process.kill()
            await server.process.wait()


@pytest.fixture
async def system(pair: tuple[Server, Server]) -> AsyncIterator[Client]:
    """The system account, seen from the first server once the two know each other."""
    client = await eventually(lambda: _connected(pair[0].system_url), within=30)
    await eventually(lambda: _both_answer(client), within=30)
    yield client
    await client.close()


class TestPair:
    async def test_a_connection_to_the_other_one_counts(
        self, pair: tuple[Server, Server], system: Client
    ) -> None:
        async with connect(pair[1].url, name="otter"):
            assert "otter" in (await Servers(system, "FLEET").look()).names
        assert "otter" not in (await Servers(system, "FLEET").look()).names

    async def test_it_is_missed_when_it_goes(
        self, pair: tuple[Server, Server], system: Client
    ) -> None:
        assert system.is_connected
        facts: list[Fact] = []
        async with connect(pair[0].url) as fleet:
            link = Link(fleet.nats, SystemAccount([pair[0].system_url]))
            listening = asyncio.create_task(link.run(facts.append))
            await eventually(lambda: not link.trouble)
            async with connect(pair[1].url, name="otter"):
                pass
            await eventually(
                lambda: [(f.name, f.gone) for f in facts] == [("otter", False), ("otter", True)]
            )
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def test_nothing_is_concluded_while_one_does_not_answer(
        self, pair: tuple[Server, Server], system: Client
    ) -> None:
        pair[1].process.send_signal(signal.SIGKILL)
        await pair[1].process.wait()
        with pytest.raises(Incomplete, match="1 of 2"):
            await Servers(system, "FLEET").look()


async def _connected(url: str) -> Client | None:
    try:
        return await nats.connect(url, allow_reconnect=False, error_cb=_ignore)
    except (OSError, NatsError):
        return None


async def _both_answer(client: Client) -> bool:
    return len(await Servers(client, "FLEET").uptimes()) == 2


async def _ignore(_: Exception) -> None: ...
