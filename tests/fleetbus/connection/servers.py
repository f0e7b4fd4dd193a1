"""NATS servers with users and limits that change while they run."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import nats

from fleetbus.embedded.nats import EmbeddedNats

FREE = '{ publish: ">", subscribe: ">" }'


@dataclass(frozen=True)
class User:
    name: str
    password: str = "secret"
    permissions: str = FREE


class ConfiguredNats(EmbeddedNats):
    """A server whose users, permissions and largest message a test sets, at any time."""

    def __init__(self, data_dir: Path, *users: User) -> None:
        super().__init__(data_dir, durable=False)
        self.users = {user.name: user for user in users}
        self.importers: list[User] = []
        """Users of another account, which may ask in this one."""
        self.max_payload = 1024 * 1024

    def url_of(self, name: str, password: str = "secret") -> str:
        return f"nats://{name}:{password}@127.0.0.1:{self.port}"

    def change(self, name: str, **changes: str) -> None:
        self.users[name] = replace(self.users[name], **changes)

    async def reload(self) -> None:
        """Have the running server read its configuration again."""
        self._write_config()
        before = self.log.count("Reloaded server configuration")
        os.kill(self.pid, signal.SIGHUP)
        async with asyncio.timeout(10):
            while self.log.count("Reloaded server configuration") == before:  # noqa: ASYNC110  of a file
                await asyncio.sleep(0.01)

    @property
    def log(self) -> str:
        return (self.data_dir / "nats.log").read_text()

    def _write_config(self) -> Path:
        config = super()._write_config()
        text = config.read_text().partition("system_account")[0]
        text += f"""
max_payload: {self.max_payload}
system_account: SYS
accounts {{
  SYS {{ users: [ {{ user: sys, password: sys }} ] }}
  FLEET {{ jetstream: enabled, users: [ {_listed(self.users.values())} ],
          exports: [ {{ service: "db.>" }} ] }}
  OTHER {{ users: [ {_listed(self.importers)} ],
          imports: [ {{ service: {{ account: FLEET, subject: "db.>" }} }} ] }}
}}
"""
        config.write_text(text)
        return config


def _listed(users: Iterable[User]) -> str:
    return "\n".join(
        f'{{ user: {user.name}, password: "{user.password}", permissions: {user.permissions} }}'
        for user in users
    )


@asynccontextmanager
async def configured(data_dir: Path, *users: User) -> AsyncIterator[ConfiguredNats]:
    server = ConfiguredNats(data_dir, *users)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def refused(url: str) -> bool:
    """Whether the server refuses a user at all."""

    async def ignore(_: Exception) -> None: ...

    try:
        client = await nats.connect(url, allow_reconnect=False, error_cb=ignore)
    except nats.errors.Error:
        return True
    await client.close()
    return False
