"""Child processes that are gone when the block is left, whichever way."""

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from types import TracebackType
from typing import IO, Self

STOP_SECONDS = 30
"""How long a child may take to end in its own way before it is killed."""

GRACE_SECONDS = "1"
"""How long an agent whose connection is lost has to come back; a demo need not wait for longer."""

READY = "ready "


class ServiceFailed(Exception):
    """The service did not come up; the message has what it said last."""


class Children:
    """Python processes by their ids; started in this order, stopped in the other."""

    def __init__(self) -> None:
        self._running: list[Process] = []
        self._logs: list[IO[bytes]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in reversed(self._running):
            await _stop(process)
        for log in self._logs:
            log.close()

    async def serve(self) -> str:
        """Start servers and service, all ephemeral; answers with the NATS URL."""
        log = tempfile.TemporaryFile()  # noqa: SIM115  closed on leaving the block
        self._logs.append(log)
        process = await self._start(
            "fleetbus",
            "up",
            "--ephemeral",
            "--workers",
            "2",
            stdout=PIPE,
            stderr=log,
            FLEETBUS_SUSPICION_GRACE=GRACE_SECONDS,
        )
        assert process.stdout is not None
        async for line in process.stdout:
            if line.decode().startswith(READY):
                return line.decode().removeprefix(READY).strip()
        await process.wait()
        log.seek(0)
        raise ServiceFailed(log.read().decode(errors="replace").strip()[-2_000:])

    async def work(self, nats_url: str, *arguments: str) -> Process:
        """Start a worker."""
        return await self._start("fleetbus.demo.worker", nats_url, *arguments)

    async def _start(
        self,
        module: str,
        *arguments: str,
        stdout: int | None = None,
        stderr: IO[bytes] | None = None,
        **environment: str,
    ) -> Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            stdin=DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | environment,
            # A Ctrl-C in the terminal is for the demo, which then stops its children.
            start_new_session=True,
        )
        self._running.append(process)
        return process


async def _stop(process: Process) -> None:
    """End the process, even when the caller is cancelled meanwhile."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
        process.send_signal(signal.SIGCONT)  # a frozen one ends only when it is woken up
    waiting = asyncio.ensure_future(_wait(process))
    while not waiting.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(waiting)


async def _wait(process: Process) -> None:
    try:
        await asyncio.wait_for(process.wait(), STOP_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
