"""What the NATS servers say of connections, as far as it matters here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pydantic_core

from bus.contract.fields import one_spelling

CONNECT, DISCONNECT = "CONNECT", "DISCONNECT"

SHUTDOWN = "Server Shutdown"
"""Why a server that ends in good order, or in lame duck mode, closes its connections."""

LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class Fact:
    """A connection came or went."""

    name: str
    """What its client calls it; for an agent's connection the agent's ``connection_name``."""
    connection: str
    """Which connection it is: id of the server and number there, never used twice."""
    gone: bool


def heard(subject: str, message: bytes) -> Fact | None:
    """The fact that an advisory tells, None where it can concern no agent.

    Source: advisories ``io.nats.server.advisory.v1.client_connect`` and ``…client_disconnect`` on
    ``$SYS.ACCOUNT.<account>.CONNECT`` and ``DISCONNECT``.
    """
    verb = subject.rpartition(".")[2]
    if verb not in {CONNECT, DISCONNECT}:
        return None
    try:
        advisory = pydantic_core.from_json(message)
        client, server = advisory["client"], advisory["server"]["id"]
        number, name = client["id"], client.get("name", "")
    except (ValueError, KeyError, TypeError):
        return None
    if not could_be_an_agent(name) or advisory.get("reason") == SHUTDOWN:
        return None
    return Fact(one_spelling(name), f"{server}:{number}", gone=verb == DISCONNECT)


def closed_lately(
    server: str, connections: Iterable[dict[str, Any]], *, now: datetime, within: timedelta
) -> Iterator[Fact]:
    """The facts that a server's list of closed connections tells, of those closed since."""
    for closed in connections:
        name = closed.get("name", "")
        if not could_be_an_agent(name) or closed.get("reason") == SHUTDOWN:
            continue
        if now - moment(closed["stop"]) <= within:
            yield Fact(one_spelling(name), f"{server}:{closed['cid']}", gone=True)


def could_be_an_agent(name: object) -> bool:
    """Whether an agent's connection can have this name."""
    return isinstance(name, str) and 0 < len(name) <= LONGEST_NAME and name.isprintable()


def moment(text: str) -> datetime:
    """A time as the servers write it: RFC 3339 with up to nine digits of a second."""
    return datetime.fromisoformat(text)
