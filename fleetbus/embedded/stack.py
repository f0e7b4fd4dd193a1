import asyncio
import fcntl
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from fleetbus.embedded._cluster import open_directory
from fleetbus.embedded.errors import AlreadyRunning
from fleetbus.embedded.nats import EmbeddedNats
from fleetbus.embedded.postgres import EmbeddedPostgres

REMOVED_WITHIN = 5.0
"""Seconds in which the last child of a program that was killed has ended."""


class DirectoryLock:
    """A data directory is used by one stack at a time, and the lock file says by which."""

    def __init__(self, file: Path) -> None:
        self._path = file
        self._file: BinaryIO | None = None

    def acquire(self) -> None:
        file = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with file:
                raise AlreadyRunning(self._describe(file.read())) from None
        self._file = file

    def record(self, **facts: str | int) -> None:
        assert self._file is not None
        self._file.seek(0)
        self._file.truncate()
        self._file.write(json.dumps(facts).encode())
        self._file.flush()

    def release(self) -> None:
        if self._file is not None:
            self._file.truncate(0)
            self._file.close()
            self._file = None

    def _describe(self, content: bytes) -> str:
        facts = {}
        with suppress(ValueError):
            facts = json.loads(content or b"{}")
        pid, url = facts.get("pid", "unknown"), facts.get("nats_url", "still starting")
        return f"{self._path.parent} is in use by process {pid} (NATS: {url})"


class EmbeddedStack:
    """PostgreSQL and NATS on one data directory; without one, on a directory that goes away."""

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        nats_port: int = 0,
        postgres_port: int = 0,
        postgres_settings: Mapping[str, str] | None = None,
    ) -> None:
        self.is_ephemeral = data_dir is None
        temporary = Path(tempfile.gettempdir(), f"fleetbus-{secrets.token_hex(8)}")
        self.data_dir = (data_dir or temporary).resolve()
        durable = not self.is_ephemeral
        self.postgres = EmbeddedPostgres(
            self.data_dir, port=postgres_port, durable=durable, settings=postgres_settings
        )
        self.nats = EmbeddedNats(self.data_dir, port=nats_port, durable=durable)
        self._lock = DirectoryLock(self.data_dir / "lock")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Take the directory and start both servers; on failure nothing is left of either."""
        open_directory(self.data_dir, exist_ok=not self.is_ephemeral)
        self._lock.acquire()
        try:
            self._lock.record(pid=os.getpid())
            self._keep_out_of_git()
            await self._start_both()
            self._lock.record(pid=os.getpid(), nats_url=self.nats.url)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop both servers to the end, even when the caller is cancelled meanwhile."""
        stopping = asyncio.ensure_future(self._stop())
        cancelled: asyncio.CancelledError | None = None
        while not stopping.done():
            try:
                await asyncio.shield(stopping)
            except asyncio.CancelledError as error:
                cancelled = error
        stopping.result()
        if cancelled is not None:
            raise cancelled

    def _keep_out_of_git(self) -> None:
        """An `add` of all that is here commits no key and no password."""
        ignore = self.data_dir / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")

    async def _start_both(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.postgres.start())
                group.create_task(self.nats.start())
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _stop(self) -> None:
        await asyncio.gather(self.postgres.stop(), self.nats.stop())
        if self.is_ephemeral:
            await _remove(self.data_dir)
        self._lock.release()


async def _remove(directory: Path) -> None:
    """Remove a directory, also while what a program has begun to write there still arrives."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + REMOVED_WITHIN
    # Nobody tells when the child of a program that was killed has ended.
    while not _removed(directory) and loop.time() < deadline:  # noqa: ASYNC110  as above
        await asyncio.sleep(0.02)


def _removed(directory: Path) -> bool:
    shutil.rmtree(directory, ignore_errors=True)
    return not directory.exists()
