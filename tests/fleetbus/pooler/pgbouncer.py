"""PgBouncer in transaction mode, in front of a test's database."""

import asyncio
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from fleetbus.embedded._cluster import server_user
from fleetbus.embedded._ports import free_port
from fleetbus.embedded._process import ServerProcess

# Debian puts it where only root looks.
PROGRAM = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")

CONFIG = """
[databases]
* = host={host} port={server_port}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = transaction
default_pool_size = {sessions}
max_client_conn = 200
query_wait_timeout = {patience}
server_login_retry = 1
"""


PATIENCE = 2
"""Seconds that a client waits for a session."""


@asynccontextmanager
async def pgbouncer(database_url: str, directory: Path, *, sessions: int) -> AsyncIterator[str]:
    """A pooler with so many sessions for all its clients; gives the URL that leads through it."""
    server = urlsplit(database_url)
    port = free_port()
    users = _written(directory / "users.txt", f'"{server.username}" "{server.password}"\n')
    config = CONFIG.format(
        host=server.hostname,
        server_port=server.port,
        port=port,
        users=users,
        sessions=sessions,
        patience=PATIENCE,
    )
    process = ServerProcess("pgbouncer", directory / "pgbouncer.log")
    assert PROGRAM is not None
    await process.spawn(
        (PROGRAM, _written(directory / "pgbouncer.ini", config)),
        death_signal=signal.SIGTERM,
        user=server_user(directory),
    )
    try:
        await process.wait_until(lambda: _listens(port))
        yield f"postgresql://{server.username}@127.0.0.1:{port}{server.path}"
    finally:
        await asyncio.shield(process.stop(signal.SIGINT))


def _written(path: Path, content: str) -> Path:
    path.write_text(content)
    path.chmod(0o644)
    return path


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
