"""Real handler processes and the links between them, their clients and their servers."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
from sqlalchemy.engine import make_url

from bus.storage.locks import RELAY
from fleetbus.embedded.postgres import EmbeddedPostgres
from tests.faults.nodes import Node
from tests.faults.proxy import Link
from tests.fleetbus.processes.running import Running

ROOT = Path(__file__).parents[2]

SOUND = ("fleetbus", "serve", "--wait")

ENVIRONMENT = {
    "FLEETBUS_POOL_WRITE": "4",
    "FLEETBUS_POOL_READ": "2",
    "FLEETBUS_LOG_LEVEL": "INFO",
}

LEADER_PORT = """
    SELECT a.client_port FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE l.locktype = 'advisory' AND l.granted AND a.datname = current_database()
      AND (CAST(l.classid AS bigint) << 32 | CAST(l.objid AS bigint)) = $1
"""


class Handler:
    """One handler process with its own links to Postgres and to each NATS server."""

    def __init__(
        self, name: str, command: Sequence[str], postgres: Link, nats: Sequence[Link]
    ) -> None:
        self.name = name
        self.postgres = postgres
        self.nats = list(nats)
        self._log = ""
        self._status = 0
        self._command = command
        self._environment: dict[str, str] = {}
        self._running: Running | None = None

    def configure(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)

    @property
    def links(self) -> list[Link]:
        return [self.postgres, *self.nats]

    @property
    def said(self) -> str:
        """What the processes have written so far."""
        return self._log + (self._running.output if self._running is not None else "")

    @property
    def is_running(self) -> bool:
        return self._running is not None and self._running.process.returncode is None

    async def start(self) -> None:
        """Start the process and wait until it takes requests."""
        if self.is_running:
            return
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            *self._command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | self._environment,
            cwd=ROOT,
        )
        self._running = Running(process)
        await self._running.said("serves", limit=60)

    def send(self, number: signal.Signals) -> None:
        if self._running is not None:
            self._running.send(number)

    async def ended(self, *, limit: float = 60) -> int:
        """Wait for the end; returns the exit code."""
        if self._running is not None:
            self._status = await self._running.ended(limit=limit)
            self._log += self._running.output
            self._running = None
        return self._status

    async def says(self, words: str) -> None:
        """Wait until the process has written this."""
        assert self._running is not None
        await self._running.said(words)

    async def kill(self) -> None:
        """End the process at once, frozen or not."""
        if self._running is not None:
            self.send(signal.SIGKILL)
            await self.ended()


@dataclass
class Servers:
    """What the handlers stand on, as far as a fault may touch it."""

    postgres: EmbeddedPostgres | None = None
    nodes: list[Node] = field(default_factory=list)


@dataclass
class Fleet:
    """Everything that runs."""

    database_url: str
    nats_urls: list[str]
    handlers: list[Handler]
    clients: list[list[Link]]
    """The links of each client, one to each NATS server."""
    servers: Servers

    @property
    def links(self) -> Iterator[Link]:
        for handler in self.handlers:
            yield from handler.links
        for links in self.clients:
            yield from links

    @property
    def client_urls(self) -> list[list[str]]:
        """The NATS servers of each client, through its links."""
        return [through(links, self.nats_urls) for links in self.clients]

    async def start(self) -> None:
        """Start the handlers, the first one first: it becomes the relay."""
        await self.handlers[0].start()
        await asyncio.gather(*(handler.start() for handler in self.handlers[1:]))

    async def heal(self) -> None:
        """Undo whatever is still wrong."""
        for link in self.links:
            link.heal()
        if self.servers.postgres is not None:
            await self.servers.postgres.start()
        await asyncio.gather(*(node.start() for node in self.servers.nodes))
        for handler in self.handlers:
            handler.send(signal.SIGCONT)
            await handler.start()

    async def query(self, statement: str, *values: object) -> list[asyncpg.Record]:
        """Ask the database directly, past every link."""
        connection = await asyncpg.connect(self.database_url)
        try:
            return list(await connection.fetch(statement, *values))
        finally:
            await connection.close()

    async def leader(self) -> Handler:
        """The handler whose relay is the active one; waits until there is one."""
        async with asyncio.timeout(30):
            while True:
                for row in await self.query(LEADER_PORT, RELAY.key):
                    for handler in self.handlers:
                        if row["client_port"] in handler.postgres.server_ports:
                            return handler
                await asyncio.sleep(0.05)


@asynccontextmanager
async def fleet(
    database_url: str,
    nats_urls: Sequence[str],
    *,
    size: int = 2,
    clients: int = 4,
    command: Sequence[str] = SOUND,
    servers: Servers | None = None,
    **environment: str,
) -> AsyncIterator[Fleet]:
    """Handlers on these servers, not started yet; nothing of them is left afterwards."""
    async with AsyncExitStack() as stack:

        async def links(name: str) -> list[Link]:
            return [
                await stack.enter_async_context(
                    Link(f"{name} to NATS {number}", "nats", make_url(url).port or 0).running()
                )
                for number, url in enumerate(nats_urls)
            ]

        handlers = []
        for number in range(size):
            name = f"handler {number}"
            to_postgres = Link(f"{name} to Postgres", "postgres", make_url(database_url).port or 0)
            postgres = await stack.enter_async_context(to_postgres.running())
            handler = Handler(name, command, postgres, await links(name))
            handler.configure(
                ENVIRONMENT
                | environment
                | {
                    "DATABASE_URL": through([postgres], [database_url])[0],
                    "NATS_URL": ",".join(through(handler.nats, nats_urls)),
                }
            )
            handlers.append(handler)
        callers = [await links(f"client {number}") for number in range(clients)]
        made = Fleet(database_url, list(nats_urls), handlers, callers, servers or Servers())
        try:
            yield made
        finally:
            for link in made.links:
                link.heal()
            with suppress(TimeoutError):
                await asyncio.gather(*(handler.kill() for handler in handlers))


def through(links: Sequence[Link], urls: Sequence[str]) -> list[str]:
    """These URLs with the ports of the links that lead there."""
    return [
        make_url(url).set(host="127.0.0.1", port=link.port).render_as_string(hide_password=False)
        for link, url in zip(links, urls, strict=True)
    ]
