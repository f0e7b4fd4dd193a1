"""The servers of a run: PostgreSQL with pg_stat_statements and NATS, and what they have spent."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import psutil
from nats import connect

from benchmarks.workloads import AGENT_PREFIX, AGENTS, Workload
from fleetbus.embedded._cluster import ROLE, Cluster, postgres_install
from fleetbus.embedded._process import ServerProcess
from fleetbus.embedded.nats import EmbeddedNats
from fleetbus.embedded.postgres import EmbeddedPostgres
from fleetbus.server import migrate

SETTINGS = {
    "shared_preload_libraries": "pg_stat_statements",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "30min",
}
"""The same for every contender. Checkpoints happen between measurements, not within them."""

# One statement a line: so a single-user server reads them.
AS_SUPERUSER = f"""\
CREATE EXTENSION pg_stat_statements
GRANT pg_read_all_stats, pg_checkpoint TO {ROLE}
"""

OTHERS = 0x7000_0000
"""The prefix of the ids of tasks that are only there."""

# A SET LOCAL travels with its BEGIN in one message, so it is no round trip of its own.
_STATEMENTS = """
SELECT coalesce(sum(calls), 0) FROM pg_stat_statements
WHERE query NOT LIKE 'SET LOCAL %' AND query NOT LIKE '%pg_stat_statements%'
"""

_CHANGED = "planning.tasks, agents.agents, agents.log_chunks, bus.outbox, bus.requests"
_EMPTY = f"TRUNCATE {_CHANGED} CASCADE"

# Without a lease nobody expects to hear of them.
_AGENTS = """
INSERT INTO agents.agents (id, name)
SELECT (lpad(to_hex($1::int), 8, '0') || '-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid,
       'agent-' || i
FROM generate_series(0, $2::int - 1) AS i
"""

_FILL = """
INSERT INTO planning.tasks (id, created_at, updated_at, name, description, status, attempt,
                            claimed_by, lease_expires_at)
SELECT (lpad(to_hex($1::int), 8, '0') || '-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid,
       now() - make_interval(secs => $2 - i), now() - make_interval(secs => $2 - i),
       'Task ' || i, repeat('What is to be done, and why. ', 6), $3,
       CASE $3 WHEN 'in_progress' THEN 1 ELSE 0 END,
       CASE $3 WHEN 'in_progress' THEN 'agent-1' END,
       CASE $3 WHEN 'in_progress' THEN now() + interval '1 day' END
FROM generate_series(0, $2::int - 1) AS i
"""


@dataclass(frozen=True)
class Spent:
    """What the servers have spent so far."""

    postgres_cpu: float
    nats_cpu: float
    statements: int


class Servers:
    """Running servers and a connection of our own for arranging and looking."""

    def __init__(self, postgres: EmbeddedPostgres, nats: EmbeddedNats, db: Any) -> None:
        self.postgres = postgres
        self.nats = nats
        self.db = db
        self._run = 0

    async def prepare(self, workload: Workload, rows: int, others: int = 0) -> int:
        """Empty the tables, fill in agents and tasks; returns the prefix of the tasks' ids.

        ``others`` are further tasks, half of them completed and half of them pending.
        """
        self._run += 1
        await self.db.execute(_EMPTY)
        await self.db.execute(_AGENTS, AGENT_PREFIX, AGENTS)
        if workload.status is not None:
            await self.db.execute(_FILL, self._run, rows, workload.status, timeout=600)
        for prefix, status in enumerate(("completed", "pending"), OTHERS):
            await self.db.execute(_FILL, prefix, others // 2, status, timeout=600)
        await self.db.execute(f"VACUUM (ANALYZE) {_CHANGED}")
        await self.db.execute("CHECKPOINT")
        return self._run

    async def spent(self) -> Spent:
        """CPU seconds of each server, and the round trips that Postgres has answered."""
        return Spent(
            postgres_cpu=cpu_of(self.postgres.pid),
            nats_cpu=cpu_of(self.nats.pid),
            statements=int(await self.db.fetchval(_STATEMENTS)),
        )

    async def versions(self) -> dict[str, str]:
        """What the servers call themselves."""
        client = await connect(self.nats.system_url)
        try:
            version = client.connected_server_version
        finally:
            await client.close()
        return {
            "postgres": str(await self.db.fetchval("SHOW server_version")),
            "nats": f"{version.major}.{version.minor}.{version.patch}",
        }


@asynccontextmanager
async def running(accounts: Mapping[str, str], *, durable: bool) -> AsyncIterator[Servers]:
    """Servers in a directory that goes away; each account of NATS is a bus of its own."""
    directory = _temporary()
    postgres = EmbeddedPostgres(directory, durable=durable, settings=SETTINGS)
    nats = EmbeddedNats(directory, durable=durable, accounts=accounts)
    try:
        await _create(directory, durable=durable)
        await postgres.start()
        await nats.start()
        await migrate.upgrade(postgres.url)
        connection = await asyncpg.connect(postgres.url)
        try:
            yield Servers(postgres, nats, connection)
        finally:
            await connection.close()
    finally:
        await nats.stop()
        await postgres.stop()
        shutil.rmtree(directory, ignore_errors=True)


def pgbench_program() -> Path:
    """The load generator that comes with PostgreSQL."""
    return postgres_install() / "bin" / "pgbench"


def cpu_of(pid: int) -> float:
    """CPU seconds of a process and of its children, those included that it has reaped."""
    total = 0.0
    root = psutil.Process(pid)
    for process in (root, *root.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
        if process is root:
            total += times.children_user + times.children_system
    return total


def _temporary() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="fleetbus-bench-"))
    directory.chmod(0o711)  # Postgres, when root starts it, runs as another user
    return directory


async def _create(directory: Path, *, durable: bool) -> None:
    """Put what only a superuser may add into the template of all databases."""
    log = directory / "postgres.log"
    cluster = Cluster(directory / "postgres", log)
    await cluster.ensure_created(durable=durable)
    process = ServerProcess("postgres", log)
    options = ("-D", str(cluster.directory), "-c", "exit_on_error=on", "template1")
    await cluster.spawn(process, "postgres", "--single", *options, stdin=AS_SUPERUSER)
    if await process.wait() != 0:
        raise process.failure("could not add pg_stat_statements")
