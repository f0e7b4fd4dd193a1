"""The program as a person starts it: a process of its own."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

LIMIT = 60.0


@dataclass(frozen=True)
class Ended:
    """What a run left."""

    code: int
    out: str
    err: str


async def fleetbus(
    *arguments: str, stdin: str = "", cwd: Path | None = None, **environment: str
) -> Ended:
    """Run to the end, on an environment without settings but those given."""
    async with started(*arguments, cwd=cwd, **environment) as process:
        async with asyncio.timeout(LIMIT):
            out, err = await process.communicate(stdin.encode())
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode())


@asynccontextmanager
async def started(
    *arguments: str, cwd: Path | None = None, **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A run; it is killed with the block unless it has ended."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "fleetbus",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=cwd or "/",
        env=clean_environment() | environment,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def clean_environment() -> dict[str, str]:
    settings = ("FLEETBUS_", "NATS_URL", "DATABASE_URL", "COLUMNS", "FORCE_COLOR")
    return {name: value for name, value in os.environ.items() if not name.startswith(settings)}


def one_line(text: str) -> str:
    """A message without the frame and the line breaks that a narrow terminal gives it."""
    return " ".join("".join(c for c in text if c not in "│╭╮╰╯─").split())
