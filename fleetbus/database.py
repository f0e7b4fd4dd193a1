"""Postgres as the bus uses it: two pools, and the knowledge whether it can be reached.

The pools may lead through a pooler in transaction mode, where the session behind a connection
changes with each transaction: then nothing is left in it, no setting and no statement.

While Postgres is gone nobody waits for a connect timeout: the first failure marks it unavailable,
everyone after that is told at once, and one probe finds out when it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import asyncpg
import pydantic_core
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from contracts.errors import Unavailable
from fleetbus.endings import end
from fleetbus.slots import Slots
from persistence._driver import driver_of

log = logging.getLogger("fleetbus.database")

PROBE_INTERVAL = 0.1
"""Seconds between two attempts to reach a Postgres that is gone."""

CONNECT_TIMEOUT = 3.0
"""Seconds that one attempt to connect may take."""

_RECOVERING = {"57P01", "57P02", "57P03", "53300"}
"""SQLSTATEs of a server not in service: ending, crashed, starting up, too many connections."""

_SETTINGS = {"idle_in_transaction_session_timeout": "60000", "jit": "off"}
"""What holds on every connection that is ours; through a pooler, in every transaction."""

_WHERE = "SELECT pg_is_in_recovery(), pg_postmaster_start_time(), current_database()"


@dataclass(frozen=True)
class PoolSettings:
    """How many connections a process holds, and how long a statement may run on them.

    Vital work may take one more of each kind, so that it never waits for the others.
    """

    write: int = 8
    read: int = 4
    statement_timeout: float = 30.0


class PoolUse(NamedTuple):
    """How many connections a pool may hold, how many are taken, and how many wait for one."""

    size: int
    in_use: int
    waiting: int


def driver_url(url: str) -> str:
    """The SQLAlchemy URL (asyncpg) of a ``postgresql://`` or ``postgres://`` URL."""
    return make_url(url).set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)


def sqlstate(error: BaseException) -> str | None:
    """The SQLSTATE that Postgres gave, if this error is one of its answers."""
    origin = error.orig if isinstance(error, DBAPIError) else error
    found = getattr(origin, "sqlstate", None)
    return found if isinstance(found, str) else None


def is_outage(error: BaseException) -> bool:
    """Whether this error says that Postgres cannot be reached or is not in service."""
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return True
        cause = error.orig
        chain = {cause, getattr(cause, "__cause__", None), error.__cause__}
        return any(link is not None and is_outage(link) for link in chain if link is not error)
    if isinstance(error, TimeoutError):
        return False  # an OSError, but a deadline that passed says nothing about the server
    # InternalClientError: Postgres has ended the session, and the socket is still open.
    if isinstance(
        error, (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError, PoolTimeout)
    ):
        return True
    state = sqlstate(error)
    return state is not None and (state[:2] == "08" or state in _RECOVERING)


class Database:
    """The pools of one process."""

    def __init__(
        self,
        url: str,
        pools: PoolSettings | None = None,
        *,
        pooler_url: str | None = None,
        name: str = "fleetbus",
    ) -> None:
        """With ``pooler_url`` the pools lead there, and only what needs a session to ``url``."""
        self.url = url
        self.pooler_url = pooler_url or None
        self.settings = "".join(
            f"; SET LOCAL {setting} = {value}" for setting, value in _SETTINGS.items() if pooler_url
        )
        """What a transaction of the pools adds to its BEGIN."""
        self.pools = pools or PoolSettings()
        self._name = name
        reading, writing = self._connect_args(read_only=True), self._connect_args(read_only=False)
        used, shared = self.pooler_url or url, _leaving_nothing(name) if self.pooler_url else None
        # The pools never make anyone wait: who comes too early waits here, without a timeout.
        self._write_slots = Slots(self.pools.write)
        self._read_slots = Slots(self.pools.read)
        sizes = self._write_slots.size, self._read_slots.size
        self.write = _engine(used, shared or writing, pool_size=sizes[0], max_overflow=0)
        self.read = _engine(used, shared or reading, pool_size=sizes[1], max_overflow=0)
        # Who watches is not to wait behind those who are watched.
        self.watch = _engine(url, reading, pool_size=1, max_overflow=0, pool_pre_ping=True)
        self.dedicated = _engine(url, writing, poolclass=NullPool)
        # Connections between two uses. SQLAlchemy's own check-in and check-out take 0.2 ms, for a
        # reset that nothing needs here: every transaction is ended by whoever began it.
        self._idle: dict[AsyncEngine, deque[AsyncConnection]] = {
            self.write: deque(),
            self.read: deque(),
        }
        self._probe: asyncio.Task[None] | None = None
        self._outages = 0
        self._closed = False

    @property
    def available(self) -> bool:
        """False from the first sign of an outage until a probe has connected."""
        return self._probe is None

    def use(self) -> dict[str, PoolUse]:
        """How busy the pools are, by name."""
        pools = {"write": self._write_slots, "read": self._read_slots}
        return {name: PoolUse(s.size, s.in_use, s.waiting) for name, s in pools.items()}

    @contextlib.asynccontextmanager
    async def connection(
        self, *, read_only: bool = False, vital: bool = False
    ) -> AsyncIterator[AsyncConnection]:
        """A pooled connection in autocommit; read-only ones refuse every write.

        Vital work waits behind no other.
        A connection that died while it lay in the pool is replaced once, unseen.
        """
        engine, slots = (
            (self.read, self._read_slots) if read_only else (self.write, self._write_slots)
        )
        async with slots.slot(vital=vital):
            connection = await self._checkout(engine, slots.size)
            try:
                if read_only and self.pooler_url:
                    async with self._reading(driver_of(connection)):
                        yield connection
                else:
                    yield connection
            except BaseException as error:
                if is_outage(error) or isinstance(error, asyncio.CancelledError):
                    await asyncio.shield(_discard(connection))
                raise
            finally:
                if self._is_usable(connection):
                    self._idle[engine].append(connection)
                else:
                    await asyncio.shield(_discard(connection))

    def idle(self) -> list[AsyncConnection]:
        """The connections that nobody uses right now."""
        return [connection for idle in self._idle.values() for connection in idle]

    def lost(self, error: BaseException) -> None:
        """Note an outage: use no connection from before it, look for the server until it answers.

        The pools are not disposed of: what is in use would not find back into them, and be lost.
        """
        if not self.available or self._closed:
            return
        self._outages += 1
        self._probe = asyncio.create_task(self._until_reachable(error))

    async def verify(self) -> None:
        """Connect once on each way, outside the pools; raises what asyncpg raises."""
        reached = await _reach(self.url)
        if self.pooler_url and await _reach(self.pooler_url) != reached:
            raise ConnectionError("the pooler leads to another database")

    async def close(self) -> None:
        """Close every connection."""
        self._closed = True
        if self._probe is not None:
            await end(self._probe)
        for engine, idle in self._idle.items():
            while idle:
                await idle.pop().close()
            await engine.dispose()
        await self.watch.dispose()
        await self.dedicated.dispose()

    async def _checkout(self, engine: AsyncEngine, size: int) -> AsyncConnection:
        if not self.available:
            raise Unavailable
        idle = self._idle[engine]
        while idle:
            connection = idle.pop()
            if self._is_usable(connection):
                return connection
            await _discard(connection)
        return await self._connect(engine, size)

    async def _connect(self, engine: AsyncEngine, size: int) -> AsyncConnection:
        failures = 0
        # The pool may hold as many dead connections as it holds at all.
        for _ in range(size + 2):
            connection: AsyncConnection | None = None
            try:
                connection = await engine.connect()
            except Exception as error:
                if connection is not None:
                    await _discard(connection)
                if not is_outage(error) and not isinstance(error, TimeoutError):
                    raise
                failures += 1
                if failures == 2:
                    self.lost(error)
                    raise Unavailable from error
                continue
            if self._is_usable(connection):
                return connection
            await _discard(connection)
        self.lost(ConnectionError("connections are closed as soon as they are made"))
        raise Unavailable

    def _is_usable(self, connection: AsyncConnection) -> bool:
        """Whether it is open, and from after the last outage."""
        if connection.closed or connection.invalidated or self._closed:
            return False
        outages = connection.sync_connection.info.setdefault("outages", self._outages)  # type: ignore[union-attr]  # connected
        return outages == self._outages and not driver_of(connection).is_closed()

    async def _until_reachable(self, error: BaseException) -> None:
        log.error("Postgres is unavailable: %s", error)
        attempts = 0
        while True:
            try:
                await _reach(self.pooler_url or self.url)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                attempts += 1
                await asyncio.sleep(PROBE_INTERVAL)
            else:
                break
        self._probe = None
        log.warning("Postgres is available again after %d attempts", attempts + 1)

    @contextlib.asynccontextmanager
    async def _reading(self, driver: Any) -> AsyncIterator[None]:
        """What a connection of the pool for queries is by itself, for one transaction."""
        timeout = int(self.pools.statement_timeout * 1000)
        await driver.execute(
            f"BEGIN READ ONLY; SET LOCAL statement_timeout = {timeout}{self.settings}"
        )
        try:
            yield
        except Exception as error:
            # After an outage, or when cancelled, the connection ends and its transaction with it.
            if not is_outage(error):
                await driver.execute("ROLLBACK")
            raise
        else:
            await driver.execute("ROLLBACK")

    def _connect_args(self, *, read_only: bool) -> dict[str, Any]:
        settings = {
            "application_name": self._name,
            "statement_timeout": str(int(self.pools.statement_timeout * 1000)),
            **_SETTINGS,
        }
        if read_only:
            settings["default_transaction_read_only"] = "on"
        return {"timeout": CONNECT_TIMEOUT, "server_settings": settings}


async def _reach(url: str) -> tuple[Any, ...]:
    """Connect once; returns what tells one server and database from another."""
    async with asyncio.timeout(CONNECT_TIMEOUT):
        connection = await asyncpg.connect(
            _plain(url), timeout=CONNECT_TIMEOUT, statement_cache_size=0
        )
        try:
            row = await connection.fetchrow(_WHERE)
        finally:
            await connection.close(timeout=CONNECT_TIMEOUT)
    assert row is not None
    standby, *reached = row
    if standby:
        raise ConnectionError("the server is a standby or in recovery")
    return tuple(reached)


def _engine(url: str, connect_args: dict[str, Any], **pool: Any) -> AsyncEngine:
    return create_async_engine(
        driver_url(url),
        isolation_level="AUTOCOMMIT",
        json_deserializer=pydantic_core.from_json,
        connect_args=connect_args,
        **pool,
    )


def _leaving_nothing(name: str) -> dict[str, Any]:
    """How to connect to a pooler: it takes no settings, and with nothing to cache asyncpg names no
    statement.

    Source: https://www.pgbouncer.org/features.html and asyncpg's FAQ on prepared statements.
    """
    return {
        "timeout": CONNECT_TIMEOUT,
        # As Postgres spells it: asyncpg's own spelling would be set anew for each transaction.
        "server_settings": {"application_name": name, "client_encoding": "UTF8"},
        "statement_cache_size": 0,
        "prepared_statement_cache_size": 0,
    }


async def _discard(connection: AsyncConnection) -> None:
    with contextlib.suppress(Exception):
        await connection.invalidate()
    with contextlib.suppress(Exception):
        await connection.close()


def _plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def describe(url: str) -> str:
    """A database URL without its password, to be shown."""
    return make_url(url).render_as_string(hide_password=True)
