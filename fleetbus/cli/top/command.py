"""``fleetbus top``: the fleet as it is, again and again."""

from __future__ import annotations

from typing import Annotated

import typer

from fleetbus.cli.addresses import Address, NatsUrl, nats_address
from fleetbus.cli.terminal import console, run


def top(
    *,
    interval: Annotated[
        float, typer.Option(min=0.2, help="Seconds between two updates.", metavar="SECONDS")
    ] = 1.0,
    once: Annotated[
        bool, typer.Option("--once", help="Print once and exit; the default in a pipe.")
    ] = False,
    nats_url: NatsUrl = None,
) -> None:
    """Watch the fleet: agents, queue, events, relay, operations. Ctrl-C ends it.

    Rates of operations are those since the last look, p99 that since a
    process was started. It asks only over NATS.

    Examples:
        fleetbus top
        fleetbus top --once
    """
    run(_watch(nats_address(nats_url), interval, once=once))


async def _watch(address: Address, interval: float, *, once: bool) -> None:
    import asyncio

    from rich.live import Live

    from fleetbus.cli.connection import connected
    from fleetbus.cli.top.collect import Collector
    from fleetbus.cli.top.view import picture

    screen = console()
    async with connected(address) as client:
        collector = Collector(client)
        await collector.start()
        before = await collector.look()
        if once or not screen.is_terminal:
            screen.print(picture(before))
            return
        with Live(picture(before), console=screen, screen=True, auto_refresh=False) as live:
            while True:
                await asyncio.sleep(interval)
                now = await collector.look()
                live.update(picture(now, before), refresh=True)
                before = now
