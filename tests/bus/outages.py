"""A service on servers of its own, and ways to take them from it."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import psutil
from sqlalchemy.engine import make_url

from bus.kit.aio import end
from bus.running.registry import Registry
from fleetbus.server.config import Settings
from fleetbus.server.service import Service

COMMIT = b"COMMIT\0"


@asynccontextmanager
async def serving(
    registry: Registry, database_url: str, nats_url: str, **more: object
) -> AsyncIterator[Service]:
    values: dict[str, object] = {
        "pool_write": 4,
        "pool_read": 2,
        "sweeper": False,
        "stop_timeout": 5.0,
    }
    service = Service(
        Settings.model_validate(
            {"database_url": database_url, "nats_url": nats_url, **values, **more}
        ),
        registry,
    )
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A process and all its children stand still inside the block."""
    process = psutil.Process(pid)
    stopped = [process, *process.children(recursive=True)]
    for one in stopped:
        with suppress(psutil.NoSuchProcess):
            one.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for one in stopped:
            with suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGCONT)


class Proxy:
    """Stands between a service and Postgres; armed, it cuts a connection at its next COMMIT.

    The COMMIT still reaches Postgres; its answer never reaches the service.
    """

    def __init__(self, database_url: str) -> None:
        self._target = make_url(database_url)
        self._tasks: set[asyncio.Task[None]] = set()
        self._armed = False
        self.cuts = 0
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Proxy"]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self.url = self._target.set(host="127.0.0.1", port=port).render_as_string(
            hide_password=False
        )
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def arm(self) -> None:
        """Cut the connection of the next COMMIT."""
        self._armed = True

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        answers, requests = await asyncio.open_connection(self._target.host, self._target.port)
        back = asyncio.create_task(self._copy(answers, writer))
        try:
            while data := await reader.read(65536):
                cut = self._armed and COMMIT in data
                if cut:
                    self._armed = False
                    self.cuts += 1
                    await end(back)
                requests.write(data)
                await requests.drain()
                if cut:
                    await answers.read(65536)
                    return
        except OSError:
            return
        finally:
            back.cancel()
            for way in (requests, writer):
                way.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()
