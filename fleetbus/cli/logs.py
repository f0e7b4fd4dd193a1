"""``fleetbus logs``: what an agent said."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from fleetbus.cli.addresses import Address, NatsUrl, nats_address
from fleetbus.cli.terminal import run

if TYPE_CHECKING:
    from nats.aio.client import Client

LOOK_SECONDS = 0.5
"""How often --follow asks for more; log chunks are told by no event."""

PAGE = 100


def logs(
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="The agent's id or name.")],
    *,
    session: Annotated[
        int | None, typer.Option(metavar="NUMBER", min=0, help="Only this session of the agent.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Continue with new output until Ctrl-C.")
    ] = False,
    nats_url: NatsUrl = None,
) -> None:
    """Print the log of an agent, as it was written, from the beginning.

    Given an id, it also prints the log of an agent that was deleted.

    Examples:
        fleetbus logs brave-otter --follow
        fleetbus logs 0199c0de-0000-7000-8000-000000000001 --session 2 | jq .
    """
    run(_print(nats_address(nats_url), agent, session, follow=follow))


async def _print(address: Address, agent: str, session: int | None, *, follow: bool) -> None:
    from fleetbus.cli.connection import connected

    async with connected(address) as client:
        wanted: dict[str, Any] = {"agent_id": await _id_of(client, agent)}
        if session is not None:
            wanted["session_number"] = session
        async for content in _chunks(client, wanted, follow=follow):
            sys.stdout.write(_harmless(content) if sys.stdout.isatty() else content)
            if follow:
                sys.stdout.flush()


async def _id_of(client: Client, agent: str) -> str:
    from fleetbus.cli.connection import ask

    try:
        return str(UUID(agent))
    except ValueError:
        found = await ask(client, "db.agents.find", {"name": agent})
    return str(found["id"])


async def _chunks(client: Client, wanted: dict[str, Any], *, follow: bool) -> AsyncIterator[str]:
    """The contents of a log in order; with ``follow`` endlessly.

    The last page is asked for again and again: it grows, and then another one follows.
    """
    import asyncio

    cursor: str | None = None
    seen: set[str] = set()
    patient = False
    while True:
        request = wanted | {"limit": PAGE} | ({"cursor": cursor} if cursor else {})
        page = await _page(client, request, patient=patient)
        for chunk in page["items"]:
            if chunk["id"] not in seen:
                yield chunk["content"]
        if page["next_cursor"]:
            cursor, seen = page["next_cursor"], set()
            continue
        if not follow:
            return
        seen = {chunk["id"] for chunk in page["items"]}
        patient = True
        await asyncio.sleep(LOOK_SECONDS)


async def _page(client: Client, request: dict[str, Any], *, patient: bool) -> Any:
    """A page of the log; who is patient waits for a service that is away."""
    import asyncio

    from fleetbus.cli.connection import ask
    from fleetbus.cli.problems import Refused
    from fleetbus.cli.terminal import Failed

    while True:
        try:
            return await ask(client, "db.log_chunks.list", request)
        except Failed as failure:
            if isinstance(failure, Refused) or not patient:
                raise
        await asyncio.sleep(LOOK_SECONDS)


def _harmless(text: str) -> str:
    """A text without what would move the cursor of a terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)
