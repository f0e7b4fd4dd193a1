"""``fleetbus up``, ``serve`` and ``migrate``: the commands that run the system."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleetbus.cli.addresses import DATA_DIR, DatabaseUrl, ServedNatsUrl
from fleetbus.cli.terminal import Failed, run, say

if TYPE_CHECKING:
    from fleetbus.server.config import Settings

LAST_PORT = 65_535

Workers = Annotated[
    int,
    typer.Option(metavar="N", min=1, envvar="FLEETBUS_WORKERS", help="Handler processes to run."),
]

HttpPort = Annotated[
    int | None,
    typer.Option(
        "--http-port",
        metavar="N",
        min=0,
        max=LAST_PORT,
        envvar="FLEETBUS_HTTP_PORT",
        help="Metrics and health over HTTP at this port, and the next ones for further "
        "processes; 0 takes free ones and logs them.",
        show_default="none",
    ),
]
HttpHost = Annotated[
    str | None,
    typer.Option(
        "--http-host",
        metavar="HOST",
        envvar="FLEETBUS_HTTP_HOST",
        help="The address of that port.",
        show_default="127.0.0.1",
    ),
]


def up(
    *,
    data_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the data is kept.", show_default=str(DATA_DIR)),
    ] = None,
    ephemeral: Annotated[
        bool, typer.Option("--ephemeral", help="Keep nothing: all data is deleted at the end.")
    ] = False,
    nats_port: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            max=LAST_PORT,
            help="The port of NATS; otherwise a free one, the same at each start.",
            show_default=False,
        ),
    ] = 0,
    workers: Workers = 1,
    http_port: HttpPort = None,
    http_host: HttpHost = None,
) -> None:
    """Run everything on this machine: PostgreSQL, NATS, handlers.

    Both servers come from the extra "embedded" and listen on loopback only.
    When it accepts requests it prints `ready nats://…` on standard output; the
    log goes to standard error. Ctrl-C ends it. Commands started in the same
    directory find it.

    Examples:
        fleetbus up
        fleetbus up --ephemeral --workers 2
        fleetbus up --data-dir /var/lib/fleetbus --nats-port 4222
    """
    if ephemeral and data_dir is not None:
        raise typer.BadParameter("is for data that goes away", param_hint="--ephemeral")
    loaded = _served(workers, http_port=http_port, http_host=http_host)
    from fleetbus.server import processes

    directory = None if ephemeral else data_dir or DATA_DIR
    raise typer.Exit(processes.up(loaded, data_dir=directory, nats_port=nats_port, workers=workers))


def serve(
    *,
    workers: Workers = 1,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for Postgres, NATS and the schema.")
    ] = False,
    no_relay: Annotated[
        bool, typer.Option("--no-relay", help="Do not stand by as the relay of events.")
    ] = False,
    no_sweeper: Annotated[bool, typer.Option("--no-sweeper", help="Do no periodic work.")] = False,
    no_detector: Annotated[
        bool, typer.Option("--no-detector", help="Do not listen for lost connections.")
    ] = False,
    http_port: HttpPort = None,
    http_host: HttpHost = None,
    nats_url: ServedNatsUrl = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Run handlers for an existing Postgres and NATS.

        Start as many as you like, on as many machines: they share the work. It
        refuses to start on a schema that does not fit. On SIGTERM it finishes
    what it has begun and exits with code 0.

        Examples:
            fleetbus migrate && fleetbus serve --workers 4
            DATABASE_URL=postgresql://… NATS_URL=nats://… fleetbus serve --wait
            fleetbus serve --http-port 9464 --http-host 0.0.0.0
    """
    flags: dict[str, Any] = {"nats_url": nats_url, "database_url": database_url}
    off = {"relay": no_relay, "sweeper": no_sweeper, "detector": no_detector}
    flags |= {name: False for name, is_off in off.items() if is_off}
    loaded = _served(workers, http_port=http_port, http_host=http_host, **flags)
    from fleetbus.server import processes

    raise typer.Exit(processes.serve(loaded, workers=workers, wait=wait))


def migrate(
    revision: Annotated[
        str, typer.Option(metavar="REVISION", help="The target; head is the newest.")
    ] = "head",
    database_url: DatabaseUrl = None,
) -> None:
    """Bring the database schema up to date.

    It is safe to run anywhere: one process at a time does it.

    Examples:
        fleetbus migrate
        fleetbus migrate --database-url postgresql://fleetbus@localhost/fleetbus
    """
    loaded = settings(database_url=database_url)
    found, reached = run(_upgrade(loaded.database_url, revision))
    before = "" if found in {None, reached} else f", it was at {found}"
    say(f"the schema is at revision {reached}{before}")


def _served(workers: int, **flags: Any) -> Settings:
    """The settings of handler processes; each has an HTTP port of its own."""
    loaded = settings(**flags)
    if loaded.http_port and loaded.http_port + workers > LAST_PORT + 1:
        raise typer.BadParameter("leaves no ports for all workers", param_hint="--http-port")
    return loaded


def settings(**flags: Any) -> Settings:
    """The settings of the environment, with the flags that were given."""
    from pydantic import ValidationError

    from fleetbus.server.config import Settings

    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        wrong = "; ".join(
            f"{_variable(str(item['loc'][0]))}: {item['msg']}" for item in error.errors()
        )
        raise typer.BadParameter(wrong, param_hint="the environment") from None


def _variable(name: str) -> str:
    return name if name.isupper() else f"FLEETBUS_{name.upper()}"


async def _upgrade(url: str, revision: str) -> tuple[str | None, str]:
    """Migrate; returns the revisions before and after."""
    from alembic.util import CommandError
    from sqlalchemy.exc import ArgumentError

    from fleetbus.server import migrate
    from fleetbus.server.starting import why

    try:
        return await migrate.found(url), await migrate.upgrade(url, revision)
    except (ArgumentError, ValueError):
        raise Failed("this is not the URL of a Postgres database: postgresql://…") from None
    except CommandError as error:
        raise Failed(f"the schema cannot be brought to {revision}: {error}") from None
    except Exception as error:
        if (reason := why(error, url)) is None:
            raise
        raise Failed(reason) from None
