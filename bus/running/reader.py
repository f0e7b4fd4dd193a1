"""Runs queries, and keeps those that read much to connections of their own.

Which ones that is the declaration says, or what is asked for: a search, a count. Any other that has
not been answered within a moment is taken for one of them as well.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.errors import Overloaded, TooExpensive
from bus.running.calls import Call
from bus.running.registry import Registry
from bus.storage.database import Database
from bus.storage.outages import QUERY_CANCELED, sqlstate
from bus.storage.own import commit as _commit

PATIENCE = 1.0
"""Seconds that a query keeps one of the connections for what is answered at once."""

RETRY_AFTER_MS = 1000
"""When an expensive query that was shed is worth another attempt."""


class Reader:
    """Runs the queries of a process; ``most`` expensive ones are in work or wait at once.

    ``room`` says the bytes that a reply may take.
    """

    def __init__(
        self,
        registry: Registry,
        database: Database,
        most: int,
        room: Callable[[], int],
    ) -> None:
        self._database = database
        self._registry = registry
        self._most = most
        self._room = room
        self._expensive = 0

    async def reply(self, call: Call) -> Any:
        """The reply to one query."""
        if not call.bound.handling.dependencies & {"db", "now"}:
            return await self._run(call, {})
        if not call.message.expensive:
            try:
                async with (
                    self._database.connection(read_only=True) as db,
                    asyncio.timeout(PATIENCE),
                ):
                    return await self._read(call, db)
            except TimeoutError:
                pass
        return await self._read_much(call)

    async def _read_much(self, call: Call) -> Any:
        if self._expensive >= self._most:
            raise Overloaded(
                in_flight=self._expensive, budget="expensive", retry_after_ms=RETRY_AFTER_MS
            )
        self._expensive += 1
        limit = self._database.pools.expensive_timeout
        began = float("inf")
        try:
            async with self._database.connection(read_only=True, expensive=True) as db:
                began = time.monotonic()
                return await self._read(call, db)
        except Exception as error:
            took = time.monotonic() - began
            if sqlstate(error) == QUERY_CANCELED and took >= limit:
                raise TooExpensive(seconds=limit) from error
            raise
        finally:
            self._expensive -= 1

    async def _read(self, call: Call, db: AsyncConnection) -> Any:
        given: dict[str, Any] = {"db": db}
        if "now" in call.bound.handling.dependencies:
            given["now"] = (await _commit.open_work(db, call.caller, [])).now
        return await self._run(call, given)

    async def _run(self, call: Call, given: Mapping[str, Any]) -> Any:
        handling = call.bound.handling
        values = {"room": self._room(), **given}
        picked = {name: values[name] for name in handling.dependencies}
        return await handling.function(call.message, **picked, **self._registry.given_to(handling))
