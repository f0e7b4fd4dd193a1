"""How fast the relay brings a backlog into the stream."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import nats
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError
from rich.console import Console

from benchmarks.contenders import ACCOUNTS, FLEETBUS, started
from benchmarks.servers import running
from benchmarks.workloads import DESCRIPTION, WORKLOADS

STREAM = "EVENTS"
PER_TRANSACTION = 20
GIVE_UP_AFTER = 300.0

# A transaction's events share its xid, and the relay publishes transaction by transaction.
_BACKLOG = f"""
DO $$ BEGIN
    SET synchronous_commit = off;
    FOR i IN 1 .. {{transactions}} LOOP
        INSERT INTO bus.outbox (event_id, type, entity_id, data)
        SELECT uuidv7(), 'task.completed', uuidv7()::text,
               json_build_object('task', json_build_object('description', '{DESCRIPTION * 4}'))
        FROM generate_series(1, {PER_TRANSACTION});
        COMMIT;
    END LOOP;
END $$
"""


async def run(console: Console, events: int, *, durable: bool) -> dict[str, Any]:
    """Fill the outbox, start a process with the relay, and watch the stream."""
    transactions = max(1, events // PER_TRANSACTION)
    async with running(ACCOUNTS, durable=durable) as servers:
        await servers.prepare(WORKLOADS["create"], 0)
        await servers.db.execute(_BACKLOG.format(transactions=transactions), timeout=600)
        async with started(FLEETBUS, servers, FLEETBUS_RELAY="true") as service:
            client = await nats.connect(service.url)
            watched = await _watch(client.jetstream(), transactions * PER_TRANSACTION)
            cpu, peak = service.cpu(), service.peak_memory()
            await client.close()
    per_second, seconds = watched
    console.print(
        f"relay: {per_second:,.0f} events per second ({transactions:,} transactions of "
        f"{PER_TRANSACTION}, {seconds:.1f} s), peak {peak:.0f} MiB"
    )
    return {
        "durable": durable,
        "events": transactions * PER_TRANSACTION,
        "events_per_transaction": PER_TRANSACTION,
        "per_second": per_second,
        "process_cpu_seconds": cpu,
        "peak_mib": peak,
    }


async def _watch(jetstream: JetStreamContext, wanted: int) -> tuple[float, float]:
    """Events per second between the first look at the stream that shows any and the last one."""
    first: tuple[float, int] | None = None
    async with asyncio.timeout(GIVE_UP_AFTER):
        while True:
            stored = await _stored(jetstream)
            now = time.perf_counter()
            if stored and first is None:
                first = now, stored
            if first is not None and stored >= wanted:
                seconds = max(now - first[0], 1e-9)
                return (stored - first[1]) / seconds, seconds
            await asyncio.sleep(0.01)


async def _stored(jetstream: JetStreamContext) -> int:
    try:
        return int((await jetstream.stream_info(STREAM)).state.messages)
    except NotFoundError:
        return 0
