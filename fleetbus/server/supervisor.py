"""Handler processes that are started again when they die."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time

from fleetbus.server.config import Settings

log = logging.getLogger("fleetbus.supervisor")

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
"""Seconds before a process that died is started again; doubled while it dies young."""

YOUNG = 10.0


class Supervisor:
    """Keeps a number of handler processes running."""

    def __init__(self, settings: Settings, workers: int, *, wait: bool) -> None:
        self._settings = settings
        self._wait = wait
        self._stopping = asyncio.Event()
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._ready = [asyncio.get_running_loop().create_future() for _ in range(workers)]
        self._keepers = [asyncio.create_task(self._keep(number)) for number in range(workers)]

    async def ready(self) -> bool:
        """Wait until every process takes requests; False if one cannot start."""
        return all(await asyncio.gather(*self._ready))

    async def stop(self) -> None:
        """Ask every process to drain and leave, and wait for them within the limit."""
        self._stopping.set()
        for process in self._processes.values():
            _send(process, signal.SIGTERM)
        limit = self._settings.stop_timeout + 10
        _, pending = await asyncio.wait(self._keepers, timeout=limit)
        if pending:
            log.error("%d handler processes did not stop within %.0f s", len(pending), limit)
            for process in self._processes.values():
                _send(process, signal.SIGKILL)
            await asyncio.wait(pending)
        for future in self._ready:
            future.cancel()

    @property
    def pids(self) -> list[int]:
        """The ids of the running processes."""
        return [process.pid for process in self._processes.values()]

    async def _keep(self, number: int) -> None:
        pause = FIRST_PAUSE
        first = True
        while not self._stopping.is_set():
            started = time.monotonic()
            process = await self._start(number, wait=self._wait or not first)
            self._processes[number] = process
            if self._stopping.is_set():
                _send(process, signal.SIGTERM)
            await self._watch(number, process)
            status = await process.wait()
            del self._processes[number]
            if self._stopping.is_set():
                return
            if not self._ready[number].done():
                self._ready[number].set_result(False)
                return
            first = False
            log.error("handler process %d ended with status %d", process.pid, status)
            pause = FIRST_PAUSE if time.monotonic() - started > YOUNG else pause
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _start(self, number: int, *, wait: bool) -> asyncio.subprocess.Process:
        flags = ["--wait"] if wait else []
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "fleetbus.server.processes",
            *flags,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | environment(of_worker(self._settings, number)),
            # A Ctrl-C in the terminal is for the supervisor, which then stops its processes.
            start_new_session=True,
        )

    async def _watch(self, number: int, process: asyncio.subprocess.Process) -> None:
        """Read what the process says until it closes its stdout."""
        assert process.stdout is not None
        async for line in process.stdout:
            if line.strip() == b"ready" and not self._ready[number].done():
                self._ready[number].set_result(True)


def of_worker(settings: Settings, number: int) -> Settings:
    """The settings of one of several processes: each has an HTTP port of its own."""
    if not settings.http_port:
        return settings
    return settings.model_copy(update={"http_port": settings.http_port + number})


def environment(settings: Settings) -> dict[str, str]:
    """Settings as environment variables; what is None is left out."""
    values = settings.model_dump(mode="json", exclude_none=True)
    named = {
        "DATABASE_URL": values.pop("database_url"),
        "NATS_URL": values.pop("nats_url"),
    }
    given = {name: value for name, value in values.items() if value is not None}
    return named | {f"FLEETBUS_{name.upper()}": str(value) for name, value in given.items()}


def _send(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
