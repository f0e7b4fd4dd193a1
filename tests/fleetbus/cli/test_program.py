"""The program as a whole: help, version, exit codes, what it loads."""

import subprocess
import sys

import pytest

from bus.kit.urls import without_secrets
from fleetbus.cli import addresses
from fleetbus.server import config
from tests.fleetbus.cli.program import clean_environment, fleetbus, one_line

COMMANDS = (
    "up",
    "serve",
    "migrate",
    "doctor",
    "call",
    "events",
    "describe",
    "export",
    "import",
    "demo",
)


async def test_help_names_every_command() -> None:
    ended = await fleetbus("--help")
    assert ended.code == 0
    assert all(f"│ {command} " in ended.out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
async def test_help_of_a_command_shows_examples(command: str) -> None:
    ended = await fleetbus(command, "--help")
    assert ended.code == 0
    examples = ended.out.partition("Examples:")[2].partition("╭─")[0].strip()
    assert all(f"fleetbus {command}" in line for line in examples.splitlines())


async def test_version() -> None:
    ended = await fleetbus("--version")
    assert (ended.code, ended.out) == (0, f"fleetbus {config.VERSION}\n")


@pytest.mark.parametrize("arguments", [("nonsense",), ("call",), ("events", "--nonsense")])
async def test_wrong_usage_is_2(arguments: tuple[str, ...]) -> None:
    ended = await fleetbus(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert "Error" in ended.err


async def test_without_a_command_it_helps() -> None:
    ended = await fleetbus()
    assert ended.code == 2
    assert "Usage: fleetbus" in ended.out + ended.err


def test_help_loads_nothing_that_only_commands_need() -> None:
    script = "import sys, fleetbus.cli.app; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        capture_output=True,
        text=True,
        env=clean_environment(),
    ).stdout.split()
    heavy = {"nats", "pydantic", "sqlalchemy", "alembic", "asyncpg", "asyncio", "contracts"}
    assert heavy & set(loaded) == set()


def test_the_defaults_are_those_of_the_settings() -> None:
    assert addresses.DEFAULT_NATS_URL == config.DEFAULT_NATS_URL
    assert addresses.DEFAULT_DATABASE_URL == config.DEFAULT_DATABASE_URL


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://one:4222,nats://two:4222", "nats://one:4222,nats://two:4222"),
        ("nats://user:secret@one", "nats://user:***@one"),
        ("nats://secret@one,tls://u:secret@two", "nats://***@one,tls://u:***@two"),
    ],
)
def test_secrets_in_urls_are_not_shown(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


@pytest.mark.parametrize("arguments", [("call", "db.tasks.list"), ("events",), ("describe",)])
async def test_a_server_that_cannot_be_reached(arguments: tuple[str, ...]) -> None:
    ended = await fleetbus(*arguments, NATS_URL="nats://me:secret@127.0.0.1:1")
    assert (ended.code, ended.out) == (1, "")
    assert "NATS at nats://me:***@127.0.0.1:1 cannot be reached: " in ended.err
    assert "--nats-url" in ended.err
    assert "Traceback" not in ended.err
    assert "secret" not in ended.err


async def test_flags_win_over_the_environment() -> None:
    ended = await fleetbus(
        "call", "db.x", "--nats-url", "nats://127.0.0.1:2", NATS_URL="nats://127.0.0.1:1"
    )
    assert "127.0.0.1:2 cannot be reached" in one_line(ended.err)
