"""What does not start says why in one line, and ends with a status of its own."""

import fcntl
import json
import os
import socket
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection

from fleetbus.embedded.postgres import EmbeddedPostgres
from fleetbus.server import migrate
from tests.fleetbus.cli.program import Ended, fleetbus, one_line
from tests.servers import PristineCluster, execute
from tests.servers import migrate as migrated

NOWHERE = "postgresql://fleetbus:secret@127.0.0.1:1/fleetbus"

FAILED, WRONG_USAGE = 1, 2


def assert_one_line(ended: Ended, *said: str, code: int = FAILED) -> None:
    assert "Traceback" not in ended.err
    assert ended.code == code
    lines = [line for line in ended.err.splitlines() if line and " INFO " not in line]
    assert len(lines) == 1 or code == WRONG_USAGE, ended.err
    for words in said:
        assert words in one_line(ended.err)
    assert "secret" not in ended.err


@pytest.fixture
async def newer_url(database_url: str, db: AsyncConnection) -> str:
    await db.execute(text("UPDATE bus.schema_version SET version_num = '9999'"))
    return database_url


class TestSchema:
    @pytest.mark.parametrize("command", ["migrate", "serve"])
    async def test_a_newer_one(self, newer_url: str, nats_url: str, command: str) -> None:
        ended = await fleetbus(command, DATABASE_URL=newer_url, NATS_URL=nats_url)
        assert_one_line(ended, "9999", "run the newer fleetbus")

    async def test_an_older_one(self, own_postgres: EmbeddedPostgres, nats_url: str) -> None:
        ended = await fleetbus("serve", DATABASE_URL=own_postgres.url, NATS_URL=nats_url)
        assert_one_line(ended, migrate.head(), "run `fleetbus migrate`")


class TestDatabase:
    @pytest.mark.parametrize("command", ["migrate", "serve"])
    async def test_one_that_is_not_there(self, nats_url: str, command: str) -> None:
        ended = await fleetbus(command, DATABASE_URL=NOWHERE, NATS_URL=nats_url)
        assert_one_line(ended, "Postgres at", "cannot be used")

    @pytest.mark.parametrize("command", ["migrate", "serve"])
    async def test_a_wrong_password(self, database_url: str, nats_url: str, command: str) -> None:
        wrong = make_url(database_url).set(password="secret").render_as_string(False)
        ended = await fleetbus(command, DATABASE_URL=wrong, NATS_URL=nats_url)
        assert_one_line(ended, "Postgres at", "password authentication failed")

    @pytest.mark.parametrize("command", ["migrate", "serve"])
    @pytest.mark.parametrize("url", ["nonsense", "postgresql://host:port/x"])
    async def test_no_url(self, nats_url: str, command: str, url: str) -> None:
        ended = await fleetbus(command, DATABASE_URL=url, NATS_URL=nats_url)
        assert_one_line(ended, "not the URL of a Postgres database")

    async def test_workers_say_the_same(self, nats_url: str) -> None:
        ended = await fleetbus("serve", "--workers", "2", DATABASE_URL=NOWHERE, NATS_URL=nats_url)
        assert ended.code == FAILED
        assert "Traceback" not in ended.err


class TestNats:
    @pytest.mark.parametrize("url", ["nats://127.0.0.1:1", "nats://me:secret@127.0.0.1:1", "://"])
    async def test_one_that_is_not_there(self, database_url: str, url: str) -> None:
        ended = await fleetbus("serve", DATABASE_URL=database_url, NATS_URL=url)
        assert_one_line(ended, "NATS at", "cannot be reached")


class TestSettings:
    @pytest.mark.parametrize(
        ("name", "value"),
        [("LOG_LEVEL", "LOUD"), ("POOL_WRITE", "0"), ("EXPENSIVE_TIMEOUT", "soon")],
    )
    async def test_a_wrong_one_is_named(self, nats_url: str, name: str, value: str) -> None:
        given = {"DATABASE_URL": NOWHERE, "NATS_URL": nats_url, f"FLEETBUS_{name}": value}
        ended = await fleetbus("serve", cwd=Path("/"), stdin="", **given)
        assert_one_line(ended, f"FLEETBUS_{name}", code=WRONG_USAGE)


class TestUp:
    @pytest.fixture
    async def made(self, data_dir: Path, pristine_cluster: PristineCluster) -> Path:
        """A data directory that has been used."""
        pristine_cluster.copy_to(data_dir)
        return data_dir

    async def test_on_a_newer_schema(self, made: Path) -> None:
        server = EmbeddedPostgres(made, durable=False)
        await server.start()
        await migrated(server.url)
        await execute(server.url, "UPDATE bus.schema_version SET version_num = '9999'")
        await server.stop()

        newer = f"{made} has data of a newer version"
        assert_one_line(await up(made), newer, "9999", "run the newer fleetbus")

    async def test_on_files_of_another_postgres(self, made: Path) -> None:
        (made / "postgres" / "PG_VERSION").write_text("17\n")
        assert_one_line(await up(made), "made by PostgreSQL 17", "pg_dump")

    async def test_on_files_that_are_broken(self, made: Path) -> None:
        (made / "postgres" / "global" / "pg_control").unlink()
        assert_one_line(await up(made), "could not", "pg_control")

    async def test_on_files_of_somebody_else(self, made: Path) -> None:
        if os.geteuid() != 0:
            pytest.skip("only root gives files to somebody else")
        for file in (made / "postgres" / "global").iterdir():
            os.chown(file, 1, 1)
        assert_one_line(await up(made), "ermission denied")

    async def test_where_no_directory_can_be(self, data_dir: Path) -> None:
        (data_dir / "file").touch()
        assert_one_line(await up(data_dir / "file" / "below"), "file", "Not a directory")
        assert_one_line(await up(data_dir / "file"), "cannot be used")

    async def test_on_a_directory_that_cannot_be_written(self) -> None:
        assert_one_line(await up(Path("/proc/fleetbus")), "/proc/fleetbus", "cannot be used")

    @pytest.mark.parametrize("content", [json.dumps({"pid": 1}), "{", ""])
    async def test_on_a_directory_in_use(self, data_dir: Path, content: str) -> None:
        with (data_dir / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.write(content)
            lock.flush()
            ended = await up(data_dir)
        assert_one_line(ended, "in use by process")

    async def test_on_a_port_that_is_taken(self, data_dir: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            ended = await up(data_dir, "--nats-port", port)
        assert_one_line(ended, port, "address already in use")


async def up(data_dir: Path, *more: str) -> Ended:
    return await fleetbus("up", "--data-dir", str(data_dir), *more)


class TestValues:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("FLEETBUS_INBOX_PREFIX", "events"),
            ("FLEETBUS_INBOX_PREFIX", "$JS.API"),
            ("FLEETBUS_STREAM", "a.b"),
            ("FLEETBUS_REQUEST_TIMEOUT", "inf"),
            ("FLEETBUS_IDEMPOTENCY_RETENTION", "1e300"),
            ("FLEETBUS_STREAM_MAX_AGE_DAYS", "1e300"),
        ],
    )
    async def test_one_that_cannot_be_meant_is_named(self, name: str, value: str) -> None:
        ended = await fleetbus("serve", cwd=None, **{name: value})
        assert ended.code == 2
        assert name in one_line(ended.err)
        assert "Traceback" not in ended.err
