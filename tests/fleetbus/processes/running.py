"""Real fleetbus processes, started and watched by a test."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

START_LIMIT = 30.0


class Running:
    """A process with what it has said so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.output = ""
        self._changed = asyncio.Event()
        self._open = 2
        self._readers = [
            asyncio.create_task(self._read(stream))
            for stream in (process.stdout, process.stderr)
            if stream is not None
        ]

    async def said(self, text: str, *, limit: float = START_LIMIT) -> str:
        """Wait until a line contains this; returns the line."""
        async with asyncio.timeout(limit):
            while True:
                for line in self.output.splitlines():
                    if text in line:
                        return line
                if self._open == 0:
                    raise AssertionError(f"ended without saying {text!r}:\n{self.output}")
                self._changed.clear()
                await self._changed.wait()

    async def ended(self, *, limit: float = START_LIMIT) -> int:
        """Wait for the end; returns the exit code."""
        async with asyncio.timeout(limit):
            status = await self.process.wait()
            await asyncio.gather(*self._readers)
        return status

    def send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def _read(self, stream: asyncio.StreamReader) -> None:
        async for line in stream:
            self.output += line.decode()
            self._changed.set()
        self._open -= 1
        self._changed.set()


@asynccontextmanager
async def running(*arguments: str, **environment: str) -> AsyncIterator[Running]:
    """``fleetbus`` with these arguments; ended with the block, whatever happens."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "fleetbus",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | environment,
    )
    watched = Running(process)
    try:
        yield watched
    finally:
        if process.returncode is None:
            watched.send(signal.SIGTERM)
            try:
                await watched.ended(limit=20)
            except TimeoutError:
                watched.send(signal.SIGKILL)
                await watched.ended()
