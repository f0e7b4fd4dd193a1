"""nats-py's client, closed in whatever state its connection is.

nats-py 2 writes pending data before it closes: if the connection is lost that raises, with nothing
closed; and for a server that reads nothing it would wait for ever.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from nats.aio.client import Client
from nats.errors import Error as NatsError

log = logging.getLogger("fleetbus.nats")

CLOSED_WITHIN: Final = 5.0
"""Seconds in which the server may still take what was sent before."""

_LOST: Final = (NatsError, OSError, RuntimeError)
"""What a connection raises that is gone; ``RuntimeError`` is uvloop's, of a closed transport."""


class ClosingClient(Client):
    """A client whose ``drain`` and ``close`` always end, with the connection closed."""

    async def drain(self) -> None:
        """As nats-py's; if there is no connection, or no longer one, it is closed at once."""
        try:
            await super().drain()
        except _LOST as error:
            log.info("NATS: %s", error)
            await self.close()

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        overdue = asyncio.get_running_loop().call_later(CLOSED_WITHIN, self._abort)
        try:
            await super()._close(status, do_cbs)
        except _LOST:
            # It has come as far as what was still to be written, which goes nowhere.
            self._pending, self._pending_data_size = [], 0
            self._status = Client.DISCONNECTED
            await super()._close(status, do_cbs)
        finally:
            overdue.cancel()

    def _abort(self) -> None:
        """Cut the connection: a server that reads nothing would be waited for, for ever."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()
