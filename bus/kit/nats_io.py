"""Knowing that the server has what was sent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nats.aio.client import Client


async def flush(client: Client) -> None:
    """Wait until the server has worked on everything that was sent before.

    `Client.flush` of nats-py 2 writes its PING at once, past subscriptions and messages that still
    wait for its writer; so its answer alone says nothing of those. Raises what nats-py raises when
    there is no connection or no answer within 10 seconds.
    """
    await client._flush_pending(force_flush=True)  # noqa: SLF001  pinned by a test
    # An answer that nobody waits for any more would end nats-py's reader, without a word to us.
    await asyncio.shield(client.flush())
