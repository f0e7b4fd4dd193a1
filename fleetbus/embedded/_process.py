"""A server as a child process: started through `_launch.py`, logged to a file, always reaped."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from fleetbus.embedded.errors import ServerFailed

LAUNCH = Path(__file__).with_name("_launch.py")
START_TIMEOUT = 60.0
STOP_TIMEOUT = 30.0
POLL_INTERVAL = 0.005
LOG_TAIL_LINES = 20

_WORST = re.compile(r"^.*?\b(?:FATAL|PANIC): +|^.*\[FTL\] |^\S+: error: |^nats-server: ")
_EXPLAINS = re.compile(r"^.*?\b(?:DETAIL|HINT): +")


@dataclass(frozen=True)
class User:
    uid: int
    gid: int


def current_user() -> User:
    return User(os.geteuid(), os.getegid())


def open_log(path: Path) -> BinaryIO:
    """Errors quote what was in a statement: the log is not for everyone."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


class ServerProcess:
    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self.log = log
        self._log_start = 0
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise ServerFailed(f"{self.name} is not running")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def spawn(
        self,
        command: Sequence[str | Path],
        *,
        death_signal: signal.Signals,
        user: User | None = None,
        readable: Sequence[Path] = (),
        environment: Mapping[str, str] | None = None,
        stdin: str = "",
    ) -> None:
        """Start `command` as `user`, in a session of its own so that Ctrl-C spares it.

        `death_signal` is what it gets when the thread that calls this ends, however it ends.
        """
        user = user or current_user()
        paths = os.pathsep.join(str(path) for path in readable or (Path(command[0]),))
        words = (os.getpid(), death_signal.value, user.uid, user.gid, paths, *command)
        with open_log(self.log) as log, TemporaryFile() as input_:
            input_.write(stdin.encode())
            input_.seek(0)
            self._log_start = log.tell()
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(LAUNCH)),
                *(str(word) for word in words),
                stdin=input_,
                stdout=log,
                stderr=log,
                cwd="/",
                env=environment,
                start_new_session=True,
            )

    async def wait(self) -> int:
        """Wait for the process to end by itself, and tell its exit status."""
        if self._process is None:
            raise ServerFailed(f"{self.name} is not running")
        return await self._process.wait()

    async def wait_until(self, is_ready: Callable[[], bool]) -> None:
        deadline = asyncio.get_running_loop().time() + START_TIMEOUT
        while not is_ready():
            if not self.is_running:
                raise self.failure("ended while starting")
            if asyncio.get_running_loop().time() > deadline:
                raise self.failure(f"was not ready after {START_TIMEOUT:.0f} s")
            await asyncio.sleep(POLL_INTERVAL)

    async def stop(self, *signals: signal.Signals) -> None:
        """Send the signals, each when the one before has not ended the process, and reap it."""
        process = self._process
        if process is None:
            return
        for signal_ in (*signals, signal.SIGKILL):
            with suppress(ProcessLookupError):
                process.send_signal(signal_)
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), STOP_TIMEOUT)
                break
        self._process = None

    def recent_log(self) -> str:
        """What the process has written since it was started."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def failure(self, what: str) -> ServerFailed:
        lines = self.recent_log().splitlines()[-LOG_TAIL_LINES:]
        reason = " ".join(_reason(lines).split())
        return ServerFailed(f"{self.name} {what}: {reason} (in {self.log})")


def _reason(lines: Sequence[str]) -> str:
    """Of what a server has logged, why it ended: its last word of the worst, and what explains it.

    That is `FATAL: … DETAIL: … HINT: …` or `initdb: error: …` of PostgreSQL, `[FTL] …` of NATS.
    """
    worst = [number for number, line in enumerate(lines) if _WORST.search(line)]
    if not worst:
        return lines[-1] if lines else "it has logged nothing"
    first, *rest = (_WORST.sub("", line) for line in lines[worst[-1] :])
    explained = [line for line in rest if _EXPLAINS.search(line)]
    return " ".join([first, *(_EXPLAINS.sub("", line) for line in explained)])
