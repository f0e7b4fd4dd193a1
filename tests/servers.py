"""Servers of a test run: one of each for all tests, what isolates the tests, and private ones."""

import asyncio
import inspect
import shutil
import subprocess
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import count
from pathlib import Path

import asyncpg
import nats
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from bus.storage.database import driver_url
from fleetbus.embedded.nats import EmbeddedNats
from fleetbus.embedded.postgres import EmbeddedPostgres

TEMPLATE_DATABASE = "template_fleetbus"
ACCOUNTS = {f"t{number}": f"password-{number}" for number in range(100)}

SHARED_MEMORY = Path("/dev/shm")
SHARED_MEMORY_NEEDED = 2 * 1024**3


def fastest_directory() -> Path | None:
    """Memory where there is enough: a database is hundreds of files, slow to create on a disk."""
    if not SHARED_MEMORY.is_dir() or shutil.disk_usage(SHARED_MEMORY).free < SHARED_MEMORY_NEEDED:
        return None
    return SHARED_MEMORY


@contextmanager
def server_directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="fleetbus-test-", dir=fastest_directory()))
    directory.chmod(0o711)  # Postgres, when root starts it, runs as another user
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


async def migrate(url: str) -> None:
    from fleetbus.server.migrate import upgrade

    result = upgrade(url)
    if inspect.isawaitable(result):
        await result


@asynccontextmanager
async def connection_to(url: str) -> AsyncIterator[AsyncConnection]:
    """A connection in autocommit, for arranging and looking."""
    engine = create_async_engine(driver_url(url), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    async with engine.connect() as connection:
        yield connection
    await engine.dispose()


async def execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


class Databases:
    """Clones of one migrated database, one for each test."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self._server = server
        self._numbers = count()

    async def prepare(self) -> None:
        await execute(self._server.url, f"CREATE DATABASE {TEMPLATE_DATABASE}")
        await migrate(self._server.database_url(TEMPLATE_DATABASE))
        await execute(
            self._server.url,
            f"ALTER DATABASE {TEMPLATE_DATABASE} IS_TEMPLATE true ALLOW_CONNECTIONS false",
        )

    @asynccontextmanager
    async def clone(self) -> AsyncIterator[str]:
        name = f"t_{next(self._numbers)}"
        # With fsync off copying files (9 ms) beats logging pages (13 ms).
        await execute(
            self._server.url,
            f"CREATE DATABASE {name} TEMPLATE {TEMPLATE_DATABASE} STRATEGY FILE_COPY",
        )
        # The migrated one has been there since the run began: that is no outage of this one.
        await execute(
            self._server.database_url(name), "UPDATE bus.pulse SET served_at = clock_timestamp()"
        )
        try:
            yield self._server.database_url(name)
        finally:
            await self._drop(name)

    async def _drop(self, name: str) -> None:
        """Drop a database with whatever is still connected to it.

        An autovacuum worker is no backend that this role may end; it ends by itself.
        """
        async with asyncio.timeout(30):
            while True:
                with suppress(asyncpg.InsufficientPrivilegeError):
                    await execute(self._server.url, f"DROP DATABASE {name} WITH (FORCE)")
                    return


class Accounts:
    """The accounts of one NATS server in turn, each without streams: tests cannot meet in them."""

    def __init__(self, server: EmbeddedNats) -> None:
        self._server = server
        self._names = deque(server.accounts)
        self._used: set[str] = set()

    async def next_url(self) -> str:
        async with self.held() as url:
            return url

    @asynccontextmanager
    async def held(self) -> AsyncIterator[str]:
        """The next one, which nobody else gets in the block."""
        name = self._names.popleft()
        try:
            yield await self._without_streams(name)
        finally:
            self._names.append(name)

    async def _without_streams(self, name: str) -> str:
        url = self._server.account_url(name)
        if name in self._used:
            await delete_streams(url)
        self._used.add(name)
        return url


async def delete_streams(url: str) -> None:
    connection = await nats.connect(url)
    try:
        jetstream = connection.jetstream()
        while streams := await jetstream.streams_info():
            for stream in streams:
                assert stream.config.name is not None
                await jetstream.delete_stream(stream.config.name)
    finally:
        await connection.close()


class PristineCluster:
    """A data directory as the first start leaves it, copied for each private server."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir

    async def prepare(self) -> None:
        server = EmbeddedPostgres(self._data_dir, durable=False)
        await server.start()
        await server.stop()

    def copy_to(self, data_dir: Path) -> None:
        # Unlike shutil, cp keeps the owner, whom Postgres insists on.
        made = (self._data_dir / "postgres", self._data_dir / "postgres.password")
        subprocess.run(["cp", "-a", *made, data_dir], check=True)
