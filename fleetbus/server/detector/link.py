"""The connection to the system account of NATS: kept up for ever, heard for facts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pydantic_core
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from bus.kit.nats_io import flush
from fleetbus.client.connection.client import FOR_EVER, SteadyClient, connect
from fleetbus.server.detector.advisories import Fact, heard
from fleetbus.server.detector.servers import Incomplete, Look, NotTheSystemAccount, Servers
from fleetbus.server.detector.settings import SystemAccount

log = logging.getLogger("fleetbus.detector")

RETRY_INTERVAL = 5.0
"""Seconds between two attempts with a configuration that does not work."""

LOOK_BACK = timedelta(seconds=60)
"""How long ago a connection may have been closed that nobody has heard of yet."""

ALONE = "until then only leases reveal crashes"


class Link:
    """Listens to the system account with ``run``; the servers are asked through it."""

    def __init__(self, fleet: Client, account: SystemAccount) -> None:
        self._fleet = fleet
        self._account = account
        self._client: SteadyClient | None = None
        self._servers: Servers | None = None
        self._said = ""
        self._changed = asyncio.Event()
        self._was_on = False
        self.restored_at: float | None = None
        """When the connection came back last, by the monotonic clock; None if it never went."""

    @property
    def trouble(self) -> str:
        """Why nothing is heard at the moment, empty where all is well."""
        if self._servers is None:
            return self._said or "it is connecting"
        if self._client is None or not self._client.is_connected:
            return "the connection is lost"
        return "the server refuses the subscriptions" if self._client.refused else ""

    async def run(self, hear: Callable[[Fact], None]) -> None:
        """Keep listening, until cancelled."""
        while True:
            try:
                await self._listen(hear)
            except (NatsError, OSError, TimeoutError, ValueError, Incomplete) as error:
                self._say(_words(error))
            except NotTheSystemAccount:
                self._say("the user does not belong to the system account")
            finally:
                self._servers = None
                await self._disconnect()
            await asyncio.sleep(RETRY_INTERVAL)

    async def look(self) -> Look:
        """Who is connected now. Raises ``Incomplete`` where that cannot be found out."""
        if self._servers is None or self.trouble:
            raise Incomplete(self.trouble)
        try:
            return await self._servers.look()
        except (NatsError, TimeoutError, NotTheSystemAccount) as error:
            raise Incomplete(_words(error)) from error

    async def _listen(self, hear: Callable[[Fact], None]) -> None:
        self._changed.clear()
        self._client = client = await self._connect()
        name = await self._name_of_fleet()
        servers = Servers(client, name)

        async def on_advisory(message: Msg) -> None:
            if (fact := heard(message.subject, message.data)) is not None:
                hear(fact)

        await client.subscribe(f"$SYS.ACCOUNT.{name or '*'}.*", cb=on_advisory)
        await flush(client)
        count = len(await servers.uptimes())
        self._servers, self._said = servers, ""
        log.info("connections of %s are watched on %d servers", name or "all accounts", count)
        if self._was_on:
            self.restored_at = time.monotonic()
        self._was_on = True
        await self._catch_up(servers, hear)
        while await self._restored(client):
            await self._catch_up(servers, hear)

    async def _restored(self, client: Client) -> bool:
        """Wait until the connection was lost and is there again; False if it has ended."""
        await self._changed.wait()
        self._changed.clear()
        return not client.is_closed

    async def _catch_up(self, servers: Servers, hear: Callable[[Fact], None]) -> None:
        """Hear of connections that were closed while nobody listened."""
        try:
            missed = await servers.closed_lately(LOOK_BACK)
        except (NatsError, TimeoutError, Incomplete) as error:
            log.warning("closed connections could not be looked up: %s", _words(error))
            return
        for fact in missed:
            hear(fact)

    async def _connect(self) -> SteadyClient:
        given: dict[str, Any] = {}
        if self._account.credentials:
            given["user_credentials"] = self._account.credentials
        return await connect(
            self._account.servers,
            name="fleetbus-detector",
            attempts=FOR_EVER,
            reconnect_time_wait=0.5,
            connect_timeout=5,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
            closed_cb=self._on_closed,
            **given,
        )

    async def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):
                await client.close()

    async def _name_of_fleet(self) -> str | None:
        """The account that the service itself works in, as the server calls it."""
        try:
            answer = await self._fleet.request("$SYS.REQ.USER.INFO", timeout=2)
            account = pydantic_core.from_json(answer.data)["data"]["account"]
        except (NatsError, TimeoutError):
            if not self._fleet.is_connected:
                raise  # as soon as there is a connection there is an answer
            return None
        except (ValueError, KeyError, TypeError):
            return None
        return str(account)

    async def _on_error(self, error: Exception) -> None:
        if self._servers is None:
            self._say(_words(error))

    async def _on_disconnected(self) -> None:
        if self._servers is not None and self._client is not None:
            log.error("the connection to the system account of NATS is lost; %s", ALONE)

    async def _on_reconnected(self) -> None:
        self.restored_at = time.monotonic()
        log.warning("connected to the system account of NATS again")
        self._changed.set()

    async def _on_closed(self) -> None:
        self._changed.set()

    def _say(self, why: str) -> None:
        """Say once why it does not work."""
        if why != self._said:
            self._said = why
            log.error("crashes cannot be detected from the bus: %s; %s", why, ALONE)


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
