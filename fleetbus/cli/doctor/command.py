"""``fleetbus doctor``: whether everything that is needed is there and works."""

from __future__ import annotations

import typer

from fleetbus.cli.addresses import DatabaseUrl, NatsUrl, nats_address, running_stack
from fleetbus.cli.terminal import console, run


def doctor(nats_url: NatsUrl = None, database_url: DatabaseUrl = None) -> None:
    """Check that everything is there and works.

    Servers, schema, stream, relay, sweeper, handlers, clocks: each line is ok
    or says what to do. The exit code is 1 if something is wrong. Nothing is
    changed. Without addresses it checks the stack that runs in ./.fleetbus,
    if there is one.

    Examples:
        fleetbus doctor
        fleetbus doctor --nats-url nats://localhost --database-url postgresql://…
    """
    from fleetbus.cli.doctor.examine import examine
    from fleetbus.cli.servers import settings

    address = nats_address(nats_url)
    if database_url is None and (stack := running_stack()) is not None:
        database_url = stack.database_url
    checks = run(examine(settings(nats_url=address.url, database_url=database_url)))
    out = console()
    for check in checks:
        out.print("ok    " if check.ok else "WRONG ", style=_style(check.ok), end="")
        out.print(f"{check.name:<11} {check.detail}", soft_wrap=True)
        if not check.ok and check.remedy:
            out.print(f"      {'':<11} → {check.remedy}", soft_wrap=True)
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


def _style(ok: bool) -> str:
    return "green" if ok else "bold red"
