"""The floor of the database: pgbench runs the statements of what is written by hand."""

from __future__ import annotations

import asyncio
import re

from sqlalchemy.engine import make_url

from benchmarks.contenders import PGBENCH
from benchmarks.peers import _statements
from benchmarks.runner import FIRST_GUESS, Measurement, Window
from benchmarks.servers import Servers, pgbench_program
from benchmarks.workloads import (
    AGENT_PREFIX,
    CATALOGUE_ROWS,
    CHUNK_BYTES,
    DESCRIPTION,
    SUMMARY,
    WORKLOADS,
    id_of,
)
from fleetbus.embedded._cluster import ROLE, server_environment

_ID = "(lpad(to_hex({prefix}), 8, '0') || '-0000-7000-8000-' || lpad(to_hex({number}), 12, '0'))"

_AGENT = id_of(AGENT_PREFIX, 1)

SCRIPTS = {
    "complete": (_statements.complete(), (_ID, f"'{SUMMARY}'")),
    "create": (_statements.create(), ("'Task'", f"'{DESCRIPTION}'", "'high'")),
    "claim": (_statements.claim(), ("'agent-1'",)),
    "append": (_statements.append(), (f"'{_AGENT}'", f"'{'.' * CHUNK_BYTES}'")),
    "get": (_statements.GET, (_ID,)),
    "list": (_statements.LIST, ("50",)),
}


class PgbenchFailed(Exception):
    """pgbench ended with an error; the message is what it wrote."""


async def measure(
    servers: Servers, workload_name: str, clients: int, window: Window, round_: int
) -> Measurement:
    """One run of pgbench; it tells the mean of the latencies, which stands for the median."""
    workload = WORKLOADS[workload_name]
    seconds = max(1, round(window.seconds))
    rows = workload.rows(FIRST_GUESS * seconds)
    prefix = await servers.prepare(workload, rows)
    # Each client takes numbers of its own, so that no task is completed twice.
    number = ":n::int * :clients + :client_id"
    if workload_name == "get":
        number = f"(:n::int * :clients + :client_id) % {CATALOGUE_ROWS}"
    statement, values = SCRIPTS[workload_name]
    for position, value in reversed(list(enumerate(values, 1))):
        text = value.format(prefix=prefix, number=number) if "{" in value else value
        cast = "::uuid" if value is _ID else ""
        statement = statement.replace(f"${position}", text + cast)
    script = "\\set n :n + 1\n" + " ".join(statement.split()) + ";\n"
    before = await servers.spent()
    output = await _run(servers, script, clients, seconds)
    after = await servers.spent()
    operations = _number(r"number of transactions actually processed: (\d+)", output)
    return Measurement(
        contender=PGBENCH,
        workload=workload_name,
        in_flight=clients,
        round=round_,
        operations=int(operations),
        errors=0,
        throughput=_number(r"tps = ([\d.]+)", output),
        p50_ms=_number(r"latency average = ([\d.]+)", output),
        p99_ms=0.0,
        handler_cpu_us=0.0,
        postgres_cpu_us=(after.postgres_cpu - before.postgres_cpu) / operations * 1e6,
        nats_cpu_us=0.0,
        load_cpu_us=0.0,
        round_trips=(after.statements - before.statements) / operations,
        peak_mib=0.0,
    )


async def _run(servers: Servers, script: str, clients: int, seconds: int) -> str:
    process = await asyncio.create_subprocess_exec(
        pgbench_program(),
        *("-h", "127.0.0.1", "-p", str(servers.postgres.port), "-U", ROLE),
        *("-n", "-M", "prepared", "-c", str(clients), "-T", str(seconds)),
        *("-D", "n=-1", "-D", f"clients={clients}", "-f", "-", "fleetbus"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=server_environment() | {"PGPASSWORD": make_url(servers.postgres.url).password or ""},
    )
    output, errors = await process.communicate(script.encode())
    if process.returncode != 0:
        raise PgbenchFailed(errors.decode())
    return output.decode()


def _number(pattern: str, text: str) -> float:
    match = re.search(pattern, text)
    if match is None:
        raise PgbenchFailed(text)
    return float(match[1])
