"""``fleetbus serve``: what it needs, what it says, and that it comes back."""

import asyncio
import gc
import os
import signal

import psutil
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.meta.meta import ListOperations
from fleetbus.client import connect
from fleetbus.embedded.nats import EmbeddedNats
from fleetbus.embedded.postgres import EmbeddedPostgres
from fleetbus.server import migrate
from fleetbus.server.config import Settings
from fleetbus.server.processes import serve_one
from tests.bus.asking import eventually
from tests.fleetbus.processes.running import running

NOWHERE = "127.0.0.1:1"


class TestMissingServers:
    async def test_without_postgres_it_says_so_and_ends(self, nats_url: str) -> None:
        missing = f"postgresql://fleetbus@{NOWHERE}/fleetbus"
        async with running("serve", DATABASE_URL=missing, NATS_URL=nats_url) as serve:
            assert await serve.ended() == 1
        assert "Postgres" in serve.output
        assert NOWHERE in serve.output
        assert "Traceback" not in serve.output

    async def test_without_nats_it_says_so_and_ends(self, database_url: str) -> None:
        missing = f"nats://{NOWHERE}"
        async with running("serve", DATABASE_URL=database_url, NATS_URL=missing) as serve:
            assert await serve.ended() == 1
        assert f"NATS at {missing} cannot be reached" in serve.output
        assert "Traceback" not in serve.output

    async def test_an_unmigrated_database_names_the_remedy(
        self, own_postgres: EmbeddedPostgres, nats_url: str
    ) -> None:
        async with running("serve", DATABASE_URL=own_postgres.url, NATS_URL=nats_url) as serve:
            assert await serve.ended() == 1
        assert "fleetbus migrate" in serve.output

    async def test_a_schema_from_the_future_is_refused(
        self, database_url: str, db: AsyncConnection, nats_url: str
    ) -> None:
        await db.execute(text("UPDATE bus.schema_version SET version_num = '9999'"))
        async with running("serve", DATABASE_URL=database_url, NATS_URL=nats_url) as serve:
            assert await serve.ended() == 1
        assert "9999" in serve.output

    async def test_with_wait_it_starts_when_all_is_there(
        self, own_postgres: EmbeddedPostgres, own_nats: EmbeddedNats
    ) -> None:
        await own_nats.stop()
        urls = {"DATABASE_URL": own_postgres.url, "NATS_URL": own_nats.url}
        async with running("serve", "--wait", **urls) as serve:
            await serve.said("waiting: the database schema")
            await migrate.upgrade(own_postgres.url)
            await serve.said("waiting: NATS")
            await own_nats.start()
            await serve.said("serves")
            serve.send(signal.SIGTERM)
            assert await serve.ended() == 0

    async def test_waiting_ends_on_a_signal(self, nats_url: str) -> None:
        missing = f"postgresql://fleetbus@{NOWHERE}/fleetbus"
        async with running("serve", "--wait", DATABASE_URL=missing, NATS_URL=nats_url) as serve:
            await serve.said("waiting")
            serve.send(signal.SIGINT)
            assert await serve.ended() == 0


class TestWorkers:
    async def test_a_worker_that_dies_is_started_again(
        self, database_url: str, nats_url: str
    ) -> None:
        urls = {"DATABASE_URL": database_url, "NATS_URL": nats_url}
        async with running("serve", "--workers", "2", **urls) as serve:
            await serve.said("2 handler processes are ready")
            before = _children(serve.process.pid)
            assert len(before) == 2

            os.kill(before[0], signal.SIGKILL)

            await serve.said(f"handler process {before[0]} ended with status -9")
            after = await _other_children(serve.process.pid, before)
            assert len(after) == 2
            async with connect(nats_url) as bus:
                assert (await bus.call(ListOperations())).items

    async def test_workers_leave_with_a_killed_supervisor(
        self, database_url: str, nats_url: str
    ) -> None:
        urls = {"DATABASE_URL": database_url, "NATS_URL": nats_url}
        async with running("serve", "--workers", "2", **urls) as serve:
            await serve.said("2 handler processes are ready")
            workers = [psutil.Process(pid) for pid in _children(serve.process.pid)]
            serve.send(signal.SIGKILL)
            gone, alive = await asyncio.to_thread(psutil.wait_procs, workers, timeout=20)
        assert len(gone) == 2
        assert not alive

    async def test_workers_that_cannot_start_end_it(self, database_url: str) -> None:
        urls = {"DATABASE_URL": database_url, "NATS_URL": f"nats://{NOWHERE}"}
        async with running("serve", "--workers", "2", **urls) as serve:
            assert await serve.ended() == 1
        assert "cannot be reached" in serve.output


class TestStop:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    async def test_a_signal_ends_it_with_0(
        self, database_url: str, nats_url: str, number: signal.Signals
    ) -> None:
        async with running("serve", DATABASE_URL=database_url, NATS_URL=nats_url) as serve:
            await serve.said("serves")
            serve.send(number)
            assert await serve.ended() == 0
        assert "Traceback" not in serve.output


def _children(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children()]


async def _other_children(pid: int, before: list[int]) -> list[int]:
    """Wait until as many children run as before, and not the same."""
    async with asyncio.timeout(20):
        while True:
            now = _children(pid)
            if len(now) == len(before) and set(now) != set(before):
                return now
            await asyncio.sleep(0.05)


class TestGarbage:
    async def test_what_was_made_at_the_start_is_looked_through_no_more(
        self, database_url: str, nats_url: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = gc.get_freeze_count()
        settings = Settings(database_url=database_url, nats_url=nats_url)
        stop = asyncio.Event()

        serving = asyncio.create_task(serve_one(settings, wait=False, stop=stop, ready=True))
        await eventually(lambda: "ready" in capsys.readouterr().out)
        stop.set()

        assert await serving == 0
        assert gc.get_freeze_count() > before
