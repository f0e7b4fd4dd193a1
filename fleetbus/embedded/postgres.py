import asyncio
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import asyncpg

from fleetbus.embedded._cluster import ROLE, Cluster, open_directory
from fleetbus.embedded._ports import remembered_port
from fleetbus.embedded._process import POLL_INTERVAL, STOP_TIMEOUT, ServerProcess
from fleetbus.embedded.errors import ServerFailed

DATABASE = "fleetbus"

# Commits still reach the operating system before they are answered, and so survive SIGKILL.
NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}

STOP_SIGNALS = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}


class EmbeddedPostgres:
    """A PostgreSQL server on loopback, kept under `data_dir`.

    Start it on the main thread: the server is shut down when the thread that started it ends.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int = 0,
        durable: bool,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.data_dir = data_dir.resolve()
        self.port = port
        self.durable = durable
        self.settings = dict(settings or {})
        log = self.data_dir / "postgres.log"
        self._cluster = Cluster(self.data_dir / "postgres", log)
        self._process = ServerProcess("postgres", log)

    @property
    def url(self) -> str:
        return self.database_url(DATABASE)

    @property
    def pid(self) -> int:
        return self._process.pid

    def database_url(self, database: str) -> str:
        password = self._cluster.password
        user = ROLE if password is None else f"{ROLE}:{password}"
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    async def start(self) -> None:
        """Start the server, first creating or recovering its files, and wait until it serves."""
        if self._process.is_running:
            return
        open_directory(self.data_dir)
        await self._cluster.ensure_created(durable=self.durable)
        await self._cluster.end_leftover()
        await self._cluster.ensure_closed(durable=self.durable)
        self.port = self.port or remembered_port(self.data_dir / "postgres.port")
        try:
            await self._serve()
            await self._ensure_database()
        except BaseException:
            await self.stop("immediate")
            raise

    async def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        await self._process.stop(STOP_SIGNALS[mode], signal.SIGQUIT)

    async def kill(self) -> None:
        await self._process.stop(signal.SIGKILL)

    async def wait(self) -> int:
        """Wait for the server to end by itself, and tell its exit status."""
        return await self._process.wait()

    async def _serve(self) -> None:
        deadline = asyncio.get_running_loop().time() + STOP_TIMEOUT
        while True:
            try:
                await self._cluster.spawn(self._process, "postgres", *self._arguments())
                await self._process.wait_until(lambda: self._cluster.is_served_by(self.pid))
            except ServerFailed:
                # The last postmaster was killed, and a backend of its is still at a statement.
                is_busy = "pre-existing shared memory block" in self._process.recent_log()
                if not is_busy or asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(POLL_INTERVAL)
            else:
                return

    def _arguments(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            **({} if self.durable else NOT_DURABLE),
            **self.settings,
        }
        options = (f"--{name}={value}" for name, value in settings.items())
        return ["-D", str(self._cluster.directory), *options]

    async def _ensure_database(self) -> None:
        connection = await asyncpg.connect(self.database_url("postgres"))
        try:
            query = "SELECT true FROM pg_database WHERE datname = $1"
            if not await connection.fetchval(query, DATABASE):
                await connection.execute(f"CREATE DATABASE {DATABASE}")
        finally:
            await connection.close()
