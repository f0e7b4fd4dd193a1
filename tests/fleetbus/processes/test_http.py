"""Metrics and health of real processes: where they listen, and what they say while they stop."""

import asyncio
import signal
import socket

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.planning.projects import CreateProject, RecordProjectFetch
from fleetbus.client import connect
from tests.fleetbus.monitoring.asking import get, scrape, scraped_until, until_ready
from tests.fleetbus.processes.running import Running, running


async def port_of(process: Running) -> int:
    line = await process.said("metrics and health at")
    return int(line.rpartition(":")[2])


def free_ports(count: int) -> int:
    """The first of some ports in a row that nobody listens on."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as found:
            first = int(found.getsockname()[1])
            try:
                for port in range(first + 1, first + count):
                    socket.create_server(("127.0.0.1", port)).close()
            except OSError:
                continue
        return first


class TestServe:
    async def test_while_it_waits_it_is_live_and_not_ready(self, nats_url: str) -> None:
        urls = {"DATABASE_URL": "postgresql://fleetbus@127.0.0.1:1/x", "NATS_URL": nats_url}
        async with running("serve", "--wait", "--http-port", "0", **urls) as serve:
            port = await port_of(serve)
            assert (await get(port, "/health/live")).status == 200
            assert (await get(port, "/health/ready")).status == 503
            serve.send(signal.SIGTERM)
            assert await serve.ended() == 0

    async def test_while_it_drains_it_is_live_and_not_ready(
        self, database_url: str, db: AsyncConnection, nats_url: str
    ) -> None:
        urls = {"DATABASE_URL": database_url, "NATS_URL": nats_url, "FLEETBUS_HTTP_PORT": "0"}
        async with running("serve", **urls) as serve, connect(nats_url, timeout=30) as bus:
            port = await port_of(serve)
            await until_ready(port, 200)
            made = await bus.call(CreateProject(name="a", url="https://example.org/a"))
            await db.execute(text("BEGIN"))
            await db.execute(text("SELECT FROM planning.projects FOR UPDATE"))
            command = RecordProjectFetch(id=made.id, fetched_at=made.created_at)
            slow = asyncio.create_task(bus.call(command))
            subject = RecordProjectFetch.declared.subject
            await scraped_until(port, lambda f: f("requests_in_flight", subject=subject) == 1)

            serve.send(signal.SIGTERM)

            checks = (await until_ready(port, 503))["checks"]
            assert (checks["drain"], checks["database"]) == ("draining", "ok")
            assert (await get(port, "/health/live")).status == 200
            assert not slow.done()
            await db.execute(text("COMMIT"))
            assert (await slow).last_fetched_at == made.created_at
            assert await serve.ended() == 0
            with pytest.raises(OSError, match="onnect"):
                await get(port, "/health/live")
        assert "Traceback" not in serve.output

    async def test_a_port_that_is_taken_is_said(self, database_url: str, nats_url: str) -> None:
        urls = {"DATABASE_URL": database_url, "NATS_URL": nats_url}
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            async with running("serve", "--http-port", port, **urls) as serve:
                assert await serve.ended() == 1
        assert f"cannot start: HTTP at 127.0.0.1:{port}" in serve.output
        assert "Traceback" not in serve.output

    async def test_without_a_port_there_is_none(self, database_url: str, nats_url: str) -> None:
        async with running("serve", DATABASE_URL=database_url, NATS_URL=nats_url) as serve:
            await serve.said("serves")
            serve.send(signal.SIGTERM)
            assert await serve.ended() == 0
        assert "metrics and health" not in serve.output


class TestWorkers:
    async def test_each_has_the_next_port(self, database_url: str, nats_url: str) -> None:
        urls = {"DATABASE_URL": database_url, "NATS_URL": nats_url}
        first = free_ports(2)
        flags = ("--workers", "2", "--http-port", str(first))
        async with running("serve", *flags, **urls) as serve:
            await serve.said("2 handler processes are ready")
            found = [await scrape(port) for port in (first, first + 1)]
        assert [one("nats_connected") for one in found] == [1, 1]

    async def test_ports_beyond_the_last_are_refused(self) -> None:
        async with running("serve", "--workers", "2", "--http-port", "65535") as serve:
            assert await serve.ended() == 2
        assert "leaves no ports for all workers" in serve.output
