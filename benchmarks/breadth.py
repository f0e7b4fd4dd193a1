"""What breadth costs: a handler process with many more operations than there are today."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from rich.console import Console

from benchmarks.contenders import ACCOUNTS, ROOT, started
from benchmarks.servers import Servers, running
from benchmarks.start import MODULE, handler_process, serving, shown, summary
from benchmarks.toys.making import make

QUIET = 0.5
"""Seconds without another answer after which everybody has answered."""


@dataclass(frozen=True)
class Domain:
    """Whose operations are served: those of a directory, or the real ones."""

    name: str
    settings: dict[str, str]
    create: tuple[str, dict[str, Any]]
    get: str


REAL = Domain("as it is", {}, ("db.tasks.create", {"name": "one"}), "db.tasks.get")


async def run(
    console: Console, operations: int, rounds: int, seconds: float, *, durable: bool
) -> dict[str, Any]:
    """The real domain, and one of so many toys."""
    with tempfile.TemporaryDirectory(prefix="fleetbus-toys-") as directory:
        toys = make(Path(directory), operations)
        made = Domain(
            f"{toys.operations} operations in {len(toys.contexts)} contexts, and meta",
            {"TOYS": directory},
            (f"db.{toys.asked}s.create", {"name": "one"}),
            f"db.{toys.asked}s.get",
        )
        async with running(ACCOUNTS, durable=durable) as servers:
            await _create_tables(servers, directory)
            found = {
                domain.name: await _measure(servers, domain, rounds, seconds)
                for domain in (REAL, made)
            }
    for name, figures in found.items():
        console.print(f"{name}: {shown(figures['start'])}")
        console.print({what: figure for what, figure in figures.items() if what != "start"})
    return {"durable": durable, "rounds": rounds, "measured": found}


async def _create_tables(servers: Servers, directory: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", MODULE, "--create"),
        cwd=ROOT,
        env={"TOYS": directory, "DATABASE_URL": servers.postgres.url},
    )
    if await process.wait() != 0:
        raise RuntimeError("the tables of the toys could not be made")


async def _measure(servers: Servers, domain: Domain, rounds: int, seconds: float) -> dict[str, Any]:
    starts = [await handler_process(servers, domain.settings) for _ in range(1 + rounds)]
    async with started(serving(domain.settings), servers) as service:
        client = await nats.connect(service.url)
        try:
            described = await _described(client)
            discovered = await _discovered(client)
            latency = await _latency(client, domain, seconds)
        finally:
            await client.close()
        peak = service.peak_memory()
    return {
        "start": summary(starts[1:]),
        "peak_mib": peak,
        **described,
        **discovered,
        **latency,
    }


async def _described(client: Client) -> dict[str, Any]:
    """How many operations there are, and the documents of each context."""
    items = (await _ask(client, "db.meta.operations"))["items"]
    contexts = sorted({str(item["context"]) for item in items})
    sizes, times = [], []
    for context in contexts:
        begun = time.monotonic()
        document = await client.request(
            "db.meta.asyncapi", json.dumps({"context": context}).encode(), timeout=60
        )
        times.append(time.monotonic() - begun)
        sizes.append(len(document.data))
    return {
        "operations": len(items),
        "contexts": len(contexts),
        "largest_document_kib": max(sizes) / 1024,
        "all_documents_kib": sum(sizes) / 1024,
        "slowest_document_ms": max(times) * 1_000,
    }


async def _discovered(client: Client) -> dict[str, Any]:
    """What discovery answers, and how long it takes until all of it is there."""
    arrived: asyncio.Queue[Msg] = asyncio.Queue()
    inbox = client.new_inbox()
    await client.subscribe(inbox, cb=arrived.put)
    begun = last = time.monotonic()
    await client.publish("$SRV.INFO", b"", reply=inbox)
    sizes = []
    while True:
        try:
            message = await asyncio.wait_for(arrived.get(), QUIET)
        except TimeoutError:
            break
        last = time.monotonic()
        sizes.append(len(message.data))
    return {
        "info_answers": len(sizes),
        "info_largest_kib": max(sizes) / 1024,
        "info_all_kib": sum(sizes) / 1024,
        "info_ms": (last - begun) * 1_000,
    }


async def _latency(client: Client, domain: Domain, seconds: float) -> dict[str, Any]:
    """Gets and creations, one at a time."""
    subject, body = domain.create
    one = await _ask(client, subject, body)
    took: dict[str, list[float]] = {"get": [], "create": []}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for what, wanted, request in (
            ("get", domain.get, {"id": one["id"]}),
            ("create", subject, body),
        ):
            begun = time.monotonic()
            await _ask(client, wanted, request)
            took[what].append(time.monotonic() - begun)
    return {
        f"{what}_{name}_ms": sorted(times)[len(times) * share // 100] * 1_000
        for what, times in took.items()
        for name, share in (("p50", 50), ("p99", 99))
    }


async def _ask(client: Client, subject: str, request: dict[str, Any] | None = None) -> Any:
    body = json.dumps(request or {}).encode()
    key = {"Nats-Msg-Id": str(uuid4())} if subject.endswith(".create") else None
    reply = await client.request(subject, body, timeout=30, headers=key)
    if "Nats-Service-Error-Code" in (reply.headers or {}):
        raise NatsError(f"{subject}: {reply.data.decode()}")
    return json.loads(reply.data)
