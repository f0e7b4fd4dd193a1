"""A running service that tests take in turn; between two of them its database is emptied."""

import asyncio
from collections.abc import AsyncIterator, Callable
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

PATIENCE = 10.0
"""Seconds within which even a very busy machine has published what a test left behind."""

FEW = 2_000
"""Rows of a table from which on another database is cheaper than to empty this one."""

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


MACHINERY = {
    "cli",
    "client",
    "connection",
    "demo",
    "detector",
    "discovery",
    "examples",
    "faults",
    "monitoring",
    "pooler",
    "relay",
    "sweeper",
    "top",
    "upgrades",
    "wire",
}
"""Folders whose tests look at a service itself: how it starts and stops, what it counts, and all
that its stream holds."""


def shares(item: pytest.Item) -> bool:
    """Whether a test has the running service that others have, too.

    One that sets a service up or is marked `own_service` has its own, and so has one that asks
    for a database or an account alone: it starts something on them.
    """
    definitions = item._fixtureinfo.name2fixturedefs  # type: ignore[attr-defined]  # not public
    overridden = any(len(definitions.get(name, ())) > 1 for name in ("settings", "service"))
    return (
        "service" in item.fixturenames  # type: ignore[attr-defined]  # of a function
        and not overridden
        and item.path.parent.name not in MACHINERY
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
            db = await asyncpg.connect(settings.database_url, command_timeout=PATIENCE)
            try:
                yield cls(settings, service, db, await _tables(db), await db.fetchrow(_SHAPE))
            finally:
                await db.close()
        finally:
            if not service.draining:
                await service.stop()

    def serves(self) -> bool:
        return self.service.can_serve() and not self.service.failed.is_set()

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
        if not self.serves():
            raise Unclean("the service does not serve")
        if await self.db.fetchrow(_SHAPE) != self.shape:
            raise Unclean("the test changed the database itself")
        await self._relayed()
        while left := await self._not_empty():
            await self.db.execute("; ".join(f"DELETE FROM {table}" for table in left))
        await self.db.execute(_PULSE)

    async def _relayed(self) -> None:
        """Wait until the stream has what the test emitted: the next one is not to hear of it."""
        last = await self.db.fetchval("SELECT max(position) FROM bus.outbox")
        relay = self.service.relay
        assert relay is not None
        try:
            async with asyncio.timeout(PATIENCE):
                while last and relay.metrics.last_position < last:
                    relay.wake()
                    await asyncio.sleep(0.002)
        except TimeoutError:
            raise Unclean("the relay does not come to the end of the outbox") from None

    async def _not_empty(self) -> list[str]:
        """The tables with rows; raises `Unclean` where to delete them takes longer than a clone."""
        count = (
            "SELECT '{0}', count(*) FROM (SELECT FROM {0} LIMIT {1}) AS rows HAVING count(*) > 0"
        )
        counts = " UNION ALL ".join(count.format(table, FEW) for table in self.tables)
        found = dict(await self.db.fetch(counts))
        if FEW in found.values():
            raise Unclean("a table has many rows")
        return [table for table in self.tables if table in found]


async def _tables(db: Any) -> list[str]:
    """What is emptied, each before those that it refers to."""
    order = TopologicalSorter({row[0]: () for row in await db.fetch(_TABLES)})
    for referred, referring in await db.fetch(_REFERENCES):
        order.add(referred, referring)
    return [table for table in order.static_order() if table not in KEPT]


class Sharing:
    """The services of a worker that tests share, made anew where one of them has broken it.

    There is one for each registry that tests have.
    """

    def __init__(self, databases: Databases, accounts: Accounts) -> None:
        self._databases = databases
        self._accounts = accounts
        self._running: dict[int, tuple[Shared, AsyncExitStack]] = {}

    @asynccontextmanager
    async def turn(
        self, registry: Registry, failed: Callable[[], bool] = lambda: False
    ) -> AsyncIterator[Shared]:
        """The one of this registry, for one test, of which is asked in the end if it has failed."""
        which = id(registry)
        if which in self._running and not self._running[which][0].serves():
            await self._end(which)
        if which not in self._running:
            self._running[which] = await self._start(registry)
        shared, _ = self._running[which]
        clean = False
        try:
            yield shared
            assert await shared.idle(), "requests were left unanswered"
            if not failed():
                with suppress(Unclean):
                    await shared.empty()
                    clean = True
        finally:
            if not clean:
                await self._end(which)

    async def close(self) -> None:
        for which in [*self._running]:
            await self._end(which)

    async def _start(self, registry: Registry) -> tuple[Shared, AsyncExitStack]:
        async with AsyncExitStack() as starting:
            url = await starting.enter_async_context(self._databases.clone())
            account = await starting.enter_async_context(self._accounts.held())
            settings = settings_of(url, account)
            shared = await starting.enter_async_context(Shared.running(settings, registry))
            return shared, starting.pop_all()

    async def _end(self, which: int) -> None:
        _, stack = self._running.pop(which)
        await stack.aclose()
