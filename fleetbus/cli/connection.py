"""A NATS connection for a command, and what is asked over it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError

from fleetbus.cli.addresses import Address
from fleetbus.cli.problems import Refused, problem_of
from fleetbus.cli.terminal import Failed
from fleetbus.client.connection.client import RepliesRefused, connect

CONNECT_TIMEOUT = 3
ASK_TIMEOUT = 5.0

NO_HANDLERS = "no handler process is connected: start one with `fleetbus serve` or `fleetbus up`"


@contextlib.asynccontextmanager
async def connected(address: Address) -> AsyncIterator[Client]:
    """A connection for as long as the block lasts; it fails soon, but once made it is kept."""
    client = await _connect(address)
    try:
        yield client
    except RepliesRefused as refused:
        raise Failed(f"{address}: {refused}") from None
    finally:
        await client.close()


async def ask(client: Client, subject: str, request: dict[str, Any] | None = None) -> Any:
    """The reply of an operation. Raises ``Refused``, or ``Failed`` where nobody answers."""
    body = json.dumps(request or {}).encode()
    try:
        message = await client.request(subject, body, timeout=ASK_TIMEOUT)
    except NoRespondersError:
        raise Failed(f"nobody answers {subject}; {NO_HANDLERS}") from None
    except TimeoutError:
        raise Failed(f"no answer from {subject} within {ASK_TIMEOUT:.0f} s") from None
    if (problem := problem_of(message)) is not None:
        raise Refused(problem)
    return json.loads(message.data)


async def operations(client: Client) -> list[dict[str, Any]] | None:
    """What the service offers, None where no service answers."""
    try:
        items: list[dict[str, Any]] = (await ask(client, "db.meta.operations"))["items"]
    except Failed:
        return None
    return items


async def _connect(address: Address) -> Client:
    reasons: list[str] = []

    async def note(error: Exception) -> None:
        reasons.append(str(error) or type(error).__name__)

    try:
        return await connect(
            address.servers,
            name="fleetbus-cli",
            error_cb=note,
            connect_timeout=CONNECT_TIMEOUT,
            reconnect_time_wait=0.1,
        )
    except (OSError, NatsError, TimeoutError, ValueError) as error:
        reason = reasons[-1] if reasons else str(error) or type(error).__name__
        raise Failed(
            f"NATS at {address} cannot be reached: {reason}\n"
            "  Start everything here with `fleetbus up`, or name a server: --nats-url, NATS_URL."
        ) from None


def is_subject(text: str) -> bool:
    """Whether a request can be sent there: tokens with dots between, no wildcards."""
    return all(
        token and token not in {"*", ">"} and token.isprintable() and " " not in token
        for token in text.split(".")
    )
