"""``fleetbus up``, ``serve`` and ``migrate``."""

import asyncio
import json
import os
import re
import signal
from pathlib import Path

import pytest

from fleetbus.cli import addresses
from fleetbus.embedded.postgres import EmbeddedPostgres
from fleetbus.server import migrate
from tests.fleetbus.cli.program import fleetbus, one_line, started

LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ +.*: .+")


class TestMigrate:
    async def test_brings_the_schema_up_to_date(self, own_postgres: EmbeddedPostgres) -> None:
        for _ in range(2):
            ended = await fleetbus("migrate", DATABASE_URL=own_postgres.url)
            assert (ended.code, ended.err) == (0, "")
            assert ended.out == f"the schema is at revision {migrate.head()}\n"

    async def test_says_from_where(self, own_postgres: EmbeddedPostgres) -> None:
        await migrate.upgrade(own_postgres.url, "0006")
        ended = await fleetbus("migrate", DATABASE_URL=own_postgres.url)
        assert ended.out == f"the schema is at revision {migrate.head()}, it was at 0006\n"

    async def test_an_unknown_revision(self, database_url: str) -> None:
        ended = await fleetbus("migrate", "--revision", "9999", "--database-url", database_url)
        assert (ended.code, ended.out) == (1, "")
        assert ended.err.startswith("the schema cannot be brought to 9999: ")

    @pytest.mark.parametrize(
        ("url", "said"),
        [
            ("postgresql://me:secret@127.0.0.1:1/x", "Postgres at postgresql://me:***@127.0.0.1:1"),
            ("nonsense", "not the URL of a Postgres database"),
            ("postgresql://host:port/x", "not the URL of a Postgres database"),
        ],
    )
    async def test_an_address_without_a_database(self, url: str, said: str) -> None:
        ended = await fleetbus("migrate", DATABASE_URL=url)
        assert (ended.code, ended.out) == (1, "")
        assert said in ended.err
        assert "Traceback" not in ended.err
        assert "secret" not in ended.err

    async def test_a_database_that_does_not_exist(self, database_url: str) -> None:
        ended = await fleetbus("migrate", DATABASE_URL=database_url + "_missing")
        assert ended.code == 1
        assert "does not exist" in ended.err
        assert "Traceback" not in ended.err


class TestServe:
    async def test_serves_until_told_to_stop(self, database_url: str, nats_url: str) -> None:
        flags = ("--nats-url", nats_url, "--database-url", database_url)
        async with started("serve", *flags) as process:
            assert process.stderr is not None
            lines: list[str] = []
            async with asyncio.timeout(30):
                while "serves" not in (lines or [""])[-1]:
                    lines.append((await process.stderr.readline()).decode())
                ended = await fleetbus("call", "db.tasks.list", NATS_URL=nats_url)
                process.send_signal(signal.SIGTERM)
                await process.communicate()
        assert ended.code == 0
        assert process.returncode == 0
        assert all(LOG_LINE.fullmatch(line.rstrip("\n")) for line in lines)

    async def test_refuses_to_start_without_postgres(self, nats_url: str) -> None:
        ended = await fleetbus(
            "serve", NATS_URL=nats_url, DATABASE_URL="postgresql://fleetbus@127.0.0.1:1/fleetbus"
        )
        assert (ended.code, ended.out) == (1, "")
        assert "cannot start: Postgres at" in ended.err

    async def test_wrong_settings_are_named(self) -> None:
        ended = await fleetbus("serve", FLEETBUS_BATCH_LIMIT="many", FLEETBUS_POOL_READ="0")
        assert (ended.code, ended.out) == (2, "")
        said = one_line(ended.err)
        assert "FLEETBUS_BATCH_LIMIT: " in said
        assert "FLEETBUS_POOL_READ: " in said

    async def test_workers_are_one_at_least(self) -> None:
        assert (await fleetbus("serve", "--workers", "0")).code == 2


class TestUp:
    async def test_commands_beside_it_find_it(self, data_dir: Path) -> None:
        async with started("up", cwd=data_dir) as process:
            assert process.stdout is not None
            async with asyncio.timeout(60):
                ready = (await process.stdout.readline()).decode().split()
            called = await fleetbus("call", "db.tasks.list", cwd=data_dir)
            examined = await fleetbus("doctor", cwd=data_dir)
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(30):
                await process.communicate()
        assert ready[0] == "ready"
        assert (called.code, json.loads(called.out)["items"]) == (0, [])
        assert ready[1] in examined.out
        assert examined.code == 0, examined.out
        assert process.returncode == 0
        assert addresses.running_stack(data_dir / ".fleetbus") is None

    async def test_data_is_kept_or_it_is_not(self) -> None:
        ended = await fleetbus("up", "--ephemeral", "--data-dir", "x")
        assert (ended.code, ended.out) == (2, "")

    async def test_a_port_that_is_none(self) -> None:
        assert (await fleetbus("up", "--nats-port", "70000")).code == 2


class TestRunningStack:
    @staticmethod
    def lock(directory: Path, content: str) -> None:
        (directory / "lock").write_text(content)

    def test_the_lock_names_it(self, tmp_path: Path) -> None:
        self.lock(tmp_path, json.dumps({"pid": os.getpid(), "nats_url": "nats://127.0.0.1:5"}))
        (tmp_path / "postgres.port").write_text("6\n")
        stack = addresses.running_stack(tmp_path)
        assert stack is not None
        assert stack.nats_url == "nats://127.0.0.1:5"
        assert stack.database_url == "postgresql://fleetbus@127.0.0.1:6/fleetbus"

    @pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', '{"pid": "x"}'])
    def test_a_lock_that_says_nothing(self, content: str, tmp_path: Path) -> None:
        self.lock(tmp_path, content)
        assert addresses.running_stack(tmp_path) is None

    def test_a_process_that_is_gone(self, tmp_path: Path) -> None:
        self.lock(tmp_path, json.dumps({"pid": 2**22 + 1, "nats_url": "nats://127.0.0.1:5"}))
        assert addresses.running_stack(tmp_path) is None
