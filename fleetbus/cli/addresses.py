"""Where the servers are: flags, then the environment, then a stack that runs here."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from bus.kit.urls import without_secrets

DEFAULT_NATS_URL = "nats://127.0.0.1:4222"
DEFAULT_DATABASE_URL = "postgresql://fleetbus@127.0.0.1:5432/fleetbus"
"""The defaults of the settings, once more: importing those would take half a second."""

DATA_DIR = Path(".fleetbus")

_NATS_ENVIRONMENT = ["NATS_URL", "FLEETBUS_NATS_URL"]

NatsUrl = Annotated[
    str | None,
    typer.Option(
        "--nats-url",
        metavar="URL",
        envvar=_NATS_ENVIRONMENT,
        help="NATS, one URL or several, comma-separated; else the stack that runs in ./.fleetbus, "
        f"else {DEFAULT_NATS_URL}.",
    ),
]
ServedNatsUrl = Annotated[
    str | None,
    typer.Option(
        "--nats-url",
        metavar="URL",
        envvar=_NATS_ENVIRONMENT,
        help="NATS, one URL or several, comma-separated.",
        show_default=DEFAULT_NATS_URL,
    ),
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        metavar="URL",
        envvar=["DATABASE_URL", "FLEETBUS_DATABASE_URL"],
        help="Postgres, postgresql://user:password@host:port/database.",
        show_default=DEFAULT_DATABASE_URL,
    ),
]


@dataclass(frozen=True)
class Address:
    """One or several NATS URLs, and where they were found."""

    url: str
    origin: str = ""

    @property
    def servers(self) -> list[str]:
        """The URLs, one each."""
        return [url.strip() for url in self.url.split(",") if url.strip()]

    def __str__(self) -> str:
        return without_secrets(self.url) + (f" ({self.origin})" if self.origin else "")


@dataclass(frozen=True)
class RunningStack:
    """A ``fleetbus up`` that runs on a data directory."""

    data_dir: Path
    nats_url: str

    @property
    def database_url(self) -> str | None:
        """Its Postgres, None where it has not noted the port."""
        from fleetbus.embedded.postgres import EmbeddedPostgres

        try:
            port = int((self.data_dir / "postgres.port").read_text())
        except (OSError, ValueError):
            return None
        return EmbeddedPostgres(self.data_dir, port=port, durable=True).url


def nats_address(given: str | None) -> Address:
    """The NATS to use: the one given, else the one that runs here, else the default."""
    if given:
        return Address(given)
    if (stack := running_stack()) is not None:
        return Address(stack.nats_url, f"of the stack that runs in {stack.data_dir}")
    return Address(DEFAULT_NATS_URL, "the default")


def running_stack(data_dir: Path = DATA_DIR) -> RunningStack | None:
    """The stack that runs on a data directory: its lock file names the process and the URL."""
    try:
        facts = json.loads((data_dir / "lock").read_bytes())
        pid, url = int(facts["pid"]), str(facts["nats_url"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return RunningStack(data_dir, url) if _runs(pid) else None


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
