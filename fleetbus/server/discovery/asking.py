"""Questions that every process answers for itself."""

from __future__ import annotations

import json
import time
from typing import Any, Final

from nats.aio.client import Client
from nats.errors import Error as NatsError

PING_WAIT: Final = 0.5
"""Seconds in which handler processes may answer that they are there."""


async def everybody(client: Client, subject: str) -> list[dict[str, Any]]:
    """What everybody answers who does so in time."""
    answers: list[dict[str, Any]] = []
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    await client.publish(subject, reply=inbox)
    end = time.monotonic() + PING_WAIT
    while (left := end - time.monotonic()) > 0:
        try:
            message = await subscription.next_msg(timeout=left)
            answers.append(json.loads(message.data))
        except (NatsError, TimeoutError, ValueError):
            continue
    await subscription.unsubscribe()
    return answers
