"""Whether what is sent to this process arrives: a message to itself, through the server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import uuid4

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

ECHO_TIMEOUT = 1.0
"""Seconds in which it must come back."""


class Echo:
    """A round trip over a connection and a subscription on it, on a subject that is its own."""

    def __init__(self, client: Callable[[], Client]) -> None:
        self._client = client
        self._subject = f"_fleetbus.echo.{uuid4().hex}"
        self._awaited: dict[bytes, asyncio.Future[None]] = {}
        self._number = 0

    async def start(self) -> None:
        """Listen for what comes back."""
        await self._client().subscribe(self._subject, cb=self._heard)

    async def comes_back(self) -> bool:
        """Whether a message that is sent now comes back in time."""
        client = self._client()
        if not client.is_connected:
            return False
        self._number += 1
        number = str(self._number).encode()
        heard: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._awaited[number] = heard
        try:
            async with asyncio.timeout(ECHO_TIMEOUT):
                await client.publish(self._subject, number)
                await heard
        except (NatsError, TimeoutError, OSError):
            return False
        else:
            return True
        finally:
            del self._awaited[number]

    async def _heard(self, message: Msg) -> None:
        heard = self._awaited.get(message.data)
        if heard is not None and not heard.done():
            heard.set_result(None)
