"""A running service that tests take in turn; between two of them its database is emptied."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any, Self

import asyncpg
import pytest

from bus.running.registry import Registry
from fleetbus.server.config import Settings
from fleetbus.server.service import Service
from tests.servers import Accounts, Databases


def settings_of(database_url: str, nats_url: str) -> Settings:
    """What a service of a test has when the test does not say otherwise."""
    return Settings(
        database_url=database_url, nats_url=nats_url, pool_write=4, pool_read=2, sweeper=False
    )


FAILED = pytest.StashKey[bool]()

PATIENCE = 30.0
"""Seconds within which even a very busy machine has published what a test left behind."""

FEW = 5_000
"""Rows up to which emptying is cheaper than another database, and leaves no holes behind."""

# Written by the relay that goes on, or by migrations; `bus.pulse` is put back as it was.
KEPT = {"bus.schema_version", "bus.relay_state", "bus.reconciliation", "bus.pulse"}

_TABLES = """
    SELECT CAST(oid AS regclass)::text FROM pg_class
    WHERE relkind IN ('r', 'p') AND NOT relispartition AND oid >= 16384
"""

_REFERENCES = """
    SELECT CAST(confrelid AS regclass)::text, CAST(conrelid AS regclass)::text
    FROM pg_constraint WHERE contype = 'f' AND conrelid <> confrelid
"""

_PULSE = """
    UPDATE bus.pulse SET served_at = clock_timestamp(), interrupted_at = NULL, restored_at = NULL
"""

# What an ALTER or a CREATE leaves behind, whatever it is about.
_SHAPE = " UNION ALL ".join(
    f"SELECT CAST(oid AS text), CAST(xmin AS text) FROM {catalog} WHERE oid >= 16384"
    for catalog in ("pg_class", "pg_constraint", "pg_trigger", "pg_proc", "pg_attrdef")
)
_SHAPE = f"SELECT count(*), sum(hashtext(xmin || ' ' || oid)) FROM ({_SHAPE}) AS rows (oid, xmin)"


def shares(item: pytest.Item) -> bool:
    """Whether a test has the running service that others have, too.

    One that sets a service up or is marked `own_service` has its own, and so has one that asks
    for a database or an account alone: it starts something on them.
    """
    definitions = item._fixtureinfo.name2fixturedefs  # type: ignore[attr-defined]
    overridden = any(
        len(definitions.get(name, ())) > 1 for name in ("settings", "service", "registry")
    )
    return (
        "service" in item.fixturenames  # type: ignore[attr-defined]
        and not overridden
        and item.get_closest_marker("own_service") is None
    )


class Unclean(Exception):
    """Others cannot go on where this test has been."""


@dataclass
class Shared:
    """A service on a database and an account of its own, which one test after the other has."""

    settings: Settings
    service: Service
    db: Any
    tables: list[str]
    shape: Any

    @classmethod
    @asynccontextmanager
    async def running(cls, settings: Settings, registry: Registry) -> AsyncIterator[Self]:
        service = Service(settings, registry)
        await service.start()
        try:
            db = await asyncpg.connect(settings.database_url)
            try:
                yield cls(settings, service, db, await _tables(db), await db.fetchrow(_SHAPE))
            finally:
                await db.close()
        finally:
            if not service.draining:
                await service.stop()

    async def idle(self) -> bool:
        """Whether each request was answered, at the latest in the time that a stop would take."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings.stop_timeout):
                await self.service.dispatcher.drained()
                await self.service.wire.responder.flushed()
                return True
        return False

    async def empty(self) -> None:
        """Make it again what it was at first; raises `Unclean` where that cannot be done."""
        if not self.service.can_serve() or self.service.failed.is_set():
            raise Unclean("the service does not serve")
        await self._relayed()
        rows = 0
        while left := await self._not_empty():
            for table in left:
                rows += int((await self.db.execute(f"DELETE FROM {table}")).split()[-1])
        await self.db.execute(_PULSE)
        if rows > FEW:
            raise Unclean("a database with many rows has been emptied")
        if await self.db.fetchrow(_SHAPE) != self.shape:
            raise Unclean("the test changed the database itself")

    async def _relayed(self) -> None:
        """Wait until the stream has what the test emitted: the next one is not to hear of it."""
        last = await self.db.fetchval("SELECT max(position) FROM bus.outbox")
        relay = self.service.relay
        assert relay is not None
        async with asyncio.timeout(PATIENCE):
            while last and relay.metrics.last_position < last:
                relay.wake()
                await asyncio.sleep(0.002)

    async def _not_empty(self) -> list[str]:
        tables = (f"SELECT '{name}' WHERE EXISTS (SELECT FROM {name})" for name in self.tables)
        return [row[0] for row in await self.db.fetch(" UNION ALL ".join(tables))]


async def _tables(db: Any) -> list[str]:
    """What is emptied, each before those that it refers to."""
    order = TopologicalSorter({row[0]: () for row in await db.fetch(_TABLES)})
    for referred, referring in await db.fetch(_REFERENCES):
        order.add(referred, referring)
    return [table for table in order.static_order() if table not in KEPT]


class Sharing:
    """The one service of a worker that tests share, made anew where one of them has broken it."""

    def __init__(self, databases: Databases, accounts: Accounts, registry: Registry) -> None:
        self._databases = databases
        self._accounts = accounts
        self._registry = registry
        self._shared: Shared | None = None
        self._stack = AsyncExitStack()

    @asynccontextmanager
    async def turn(self, item: pytest.Item) -> AsyncIterator[Shared]:
        """It, for this test."""
        shared = self._shared = self._shared or await self._start()
        clean = False
        try:
            yield shared
            assert await shared.idle(), "requests were left unanswered"
            if not item.stash.get(FAILED, False):
                with suppress(Unclean):
                    await shared.empty()
                    clean = True
        finally:
            if not clean:
                await self.close()

    async def close(self) -> None:
        self._shared = None
        await self._stack.aclose()

    async def _start(self) -> Shared:
        url = await self._stack.enter_async_context(self._databases.clone())
        settings = settings_of(url, await self._accounts.next_url())
        return await self._stack.enter_async_context(Shared.running(settings, self._registry))
