"""NATS servers that may be killed, frozen and robbed: one, or three in a cluster."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from string import Template
from typing import TypeVar

import nats
import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import Error as JetStreamError

from fleetbus.embedded._ports import free_port
from fleetbus.embedded._process import ServerProcess
from fleetbus.embedded.nats import nats_server_program

STREAM = "EVENTS"

T = TypeVar("T")

DUPLICATE_WINDOW = 0.1
"""Seconds, the shortest that the server takes: the promises must not rest on it."""

CONFIG = Template("""\
listen: "127.0.0.1:$port"
server_name: "$name"
ports_file_dir: "$directory"
ping_interval: "5s"
ping_max: 2
jetstream { store_dir: "$directory", sync_interval: "2m" }
$cluster
""")
# Not advertised: clients must know a node by its proxy alone.
CLUSTER = Template("""\
cluster { name: "fleet", listen: "127.0.0.1:$port", routes: [$routes], no_advertise: true }
""")


class Node:
    """One NATS server with a store of its own."""

    def __init__(self, directory: Path, name: str, port: int, cluster: str = "") -> None:
        self.name = name
        self.port = port
        self._directory = directory / name
        self._cluster = cluster
        self._process = ServerProcess(name, directory / f"{name}.log")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start the server and wait until it listens."""
        if self._process.is_running:
            return
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        config = self._directory.with_suffix(".conf")
        text = CONFIG.substitute(
            port=self.port, name=self.name, directory=self._directory, cluster=self._cluster
        )
        config.write_text(text)
        for stale in self._directory.glob("*.ports"):
            stale.unlink()
        command = (nats_server_program(), "--config", config)
        await self._process.spawn(command, death_signal=signal.SIGTERM)
        await self._process.wait_until(self._is_ready)

    async def stop(self) -> None:
        await self._process.stop(signal.SIGTERM)

    async def kill(self) -> None:
        await self._process.stop(signal.SIGKILL)

    def save_store(self) -> None:
        """Keep a copy of the store as it is on the disk now; the server must be stopped."""
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self._directory / "jetstream", self._copy)

    def restore_store(self) -> None:
        """Put the copy in the place of the store; the server must be stopped."""
        shutil.rmtree(self._directory / "jetstream")
        shutil.copytree(self._copy, self._directory / "jetstream")

    @property
    def _copy(self) -> Path:
        return self._directory.with_suffix(".copy")

    def _is_ready(self) -> bool:
        return bool(list(self._directory.glob(f"*_{self.pid}.ports")))


def nodes_of(directory: Path, size: int) -> list[Node]:
    """One server, or several that are a cluster."""
    ports = [free_port() for _ in range(2 * size)]
    clients, routes = ports[:size], ports[size:]
    if size == 1:
        return [Node(directory, "nats", clients[0])]
    urls = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
    return [
        Node(
            directory, f"nats-{number}", port, CLUSTER.substitute(port=routes[number], routes=urls)
        )
        for number, port in enumerate(clients)
    ]


@asynccontextmanager
async def connected(*urls: str) -> AsyncIterator[Client]:
    """A client that finds its way back by itself."""

    async def ignore(_: Exception) -> None: ...

    client = await nats.connect(
        list(urls),
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.1,
        connect_timeout=5,
        error_cb=ignore,
    )
    try:
        yield client
    finally:
        await client.close()


async def make_stream(client: Client, replicas: int) -> None:
    """The stream as the relay would make it, with the shortest de-duplication window there is."""
    config = StreamConfig(
        name=STREAM,
        subjects=["events.>"],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        num_replicas=replicas,
        duplicate_window=DUPLICATE_WINDOW,
        max_age=0,
        max_msgs=-1,
        max_bytes=-1,
        allow_atomic=True,
        allow_direct=True,
    )
    async with asyncio.timeout(60):
        while True:
            try:
                await client.jetstream().add_stream(config)
            except Exception:  # noqa: BLE001  a cluster that has no leader yet says so in many ways
                await asyncio.sleep(0.1)
            else:
                return


async def insist(ask: Callable[[JetStreamContext], Awaitable[T]], urls: Sequence[str]) -> T:
    """Ask JetStream until it answers: servers that have just lost one of them take a while."""
    async with asyncio.timeout(60), connected(*urls) as client:
        while True:
            try:
                return await ask(client.jetstream())
            except (nats.errors.Error, JetStreamError):
                await asyncio.sleep(0.1)


async def stream_leader(urls: Sequence[str]) -> str | None:
    """The name of the server that leads the stream; waits until there is one."""

    async def leader(jetstream: JetStreamContext) -> str | None:
        cluster = (await jetstream.stream_info(STREAM)).cluster
        if cluster is not None and not cluster.leader:
            raise nats.errors.NoServersError
        return cluster.leader if cluster else None

    return await insist(leader, urls)
