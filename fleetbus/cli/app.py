"""The command ``fleetbus``: its subcommands, and how it ends."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from fleetbus.cli import (
    calls,
    describe,
    events,
    exports,
    logs,
    plans,
    reconcile,
    replay,
    servers,
)
from fleetbus.cli.arguments import Quick
from fleetbus.cli.doctor import command as doctor
from fleetbus.cli.overview import Overview
from fleetbus.cli.terminal import Failed
from fleetbus.cli.top import command as top

SERVERS, CLIENTS, CONTRACT, PLANS = "Servers", "Asking and watching", "The contract", "Plans"

_INBOX_PREFIX = "FLEETBUS_INBOX_PREFIX"

app = typer.Typer(
    cls=Overview,
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
)
log = typer.Typer(rich_markup_mode="rich", pretty_exceptions_enable=False)
log.callback(invoke_without_command=True)(events.events)
log.command()(reconcile.verify)
log.command()(reconcile.accept_timeline)
log.command()(replay.replay)
app.command(rich_help_panel=SERVERS)(servers.up)
app.command(rich_help_panel=SERVERS)(servers.serve)
app.command(rich_help_panel=SERVERS)(servers.migrate)
app.command(rich_help_panel=SERVERS)(doctor.doctor)
app.command(cls=Quick, rich_help_panel=CLIENTS)(calls.call)
app.add_typer(log, name="events", rich_help_panel=CLIENTS)
app.command(rich_help_panel=CLIENTS)(top.top)
app.command(rich_help_panel=CLIENTS)(logs.logs)
app.command(rich_help_panel=CONTRACT)(describe.describe)
app.command(rich_help_panel=CONTRACT)(exports.export)
app.command("import", rich_help_panel=PLANS)(plans.import_)
app.command(rich_help_panel=PLANS)(plans.demo)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"fleetbus {version('fleetbus')}")
        raise typer.Exit


@app.callback()
def fleetbus(
    version: Annotated[  # noqa: ARG001  its callback acts on it
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    inbox_prefix: Annotated[
        str | None,
        typer.Option(
            metavar="SUBJECT",
            envvar=_INBOX_PREFIX,
            help="Where replies go, if the NATS user may subscribe only to an inbox of its own.",
        ),
    ] = None,
) -> None:
    """The state service of agent fleets: Postgres behind NATS, every change an event.

    Flags override the environment: NATS_URL, DATABASE_URL, and FLEETBUS_…
    for every other setting (FLEETBUS_LOG_LEVEL=DEBUG). Without an address,
    commands that ask or watch use the servers of the `fleetbus up` that runs
    in ./.fleetbus, if there is one.

    Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 no answer (from
    `call`), 130 interrupted.

    Examples:
        fleetbus up
        fleetbus call db.tasks.list '{"limit": 10}'
        fleetbus events --follow
    """
    if inbox_prefix:
        os.environ[_INBOX_PREFIX] = inbox_prefix


def main() -> int:
    """Run the command that the arguments name; returns or exits with its status."""
    try:
        try:
            app(prog_name="fleetbus")
        except Failed as failure:
            print(failure, file=sys.stderr)  # noqa: T201  where a person looks
            return failure.code
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has left. Python flushes once more at the end, into nothing then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
