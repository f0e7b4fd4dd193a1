import asyncio
import runpy
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.health.test_runs import ListTestRuns
from fleetbus.client import Bus
from fleetbus.server.service import Service
from tests.health.arrange import a_definition, later
from tests.kit.sweeping import Sweep

EXAMPLE = Path(__file__).parents[2] / "examples" / "check_runner.py"


class Site(BaseHTTPRequestHandler):
    """Says 200 to who asks for /good, 201 to who posts to it, and 500 to all else."""

    def do_GET(self) -> None:
        self.answer(200)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(201)

    def answer(self, status: int) -> None:
        self.send_response(status if self.path == "/good" else 500)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


@pytest.fixture
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


async def test_what_is_due_is_run_once_and_recorded(
    site: str, bus: Bus, service: Service, db: AsyncConnection, nats_url: str, sweep: Sweep
) -> None:
    runner = asyncio.create_task(runpy.run_path(str(EXAMPLE))["main"](nats_url))
    schedule = {"schedule": "* * * * *"}
    await a_definition(bus, "good", endpoint=f"{site}/good", **schedule)
    await a_definition(
        bus, "post", endpoint=f"{site}/good", payload={}, expected_status=201, **schedule
    )
    await a_definition(bus, "bad", endpoint=f"{site}/bad", **schedule)
    await a_definition(bus, "nowhere", endpoint="http://127.0.0.1:1/", **schedule)
    await later(db, "test_definitions", "next_due_at", timedelta(minutes=1))
    assert await sweep("tell_due_definitions") == 4
    assert service.relay is not None
    service.relay.wake()
    try:
        async with asyncio.timeout(15):
            while len((page := await bus.call(ListTestRuns())).items) < 4:  # noqa: ASYNC110  there is nothing to wait for
                await asyncio.sleep(0.05)
    finally:
        runner.cancel()
        await asyncio.gather(runner, return_exceptions=True)
    found = {run.test_definition_id: (run.status, run.result) for run in page.items}
    assert found["good"] == ("success", {"status_code": 200})
    assert found["post"] == ("success", {"status_code": 201})
    assert found["bad"][0] == found["nowhere"][0] == "failure"
    assert (found["bad"][1] or {})["status_code"] == 500
    assert {run.triggered_by for run in page.items} == {"cron"}


def test_it_is_short() -> None:
    lines = [line for line in EXAMPLE.read_text().splitlines() if line.strip()]
    assert len(lines) <= 30
