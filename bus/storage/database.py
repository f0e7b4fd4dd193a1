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
from typing import Any, Literal, NamedTuple

from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import NullPool

from bus.contract.errors import Unavailable
from bus.kit.aio import end
from bus.storage.connecting import (
    CONNECT_TIMEOUT,
    Standby,
    discard,
    engine_of,
    leaving_nothing,
    reach,
)
from bus.storage.driver import driver_of
from bus.storage.outages import NOT_REACHED, READ_ONLY, is_outage, is_stale, sqlstate, trouble
from bus.storage.slots import Slots
from bus.storage.troubles import Troubles

log = logging.getLogger("fleetbus.database")

PROBE_INTERVAL = 0.1
"""Seconds between two attempts to reach a Postgres that is gone."""

_SETTINGS = {"idle_in_transaction_session_timeout": "60000", "jit": "off"}
"""What holds on every connection that is ours; through a pooler, in every transaction."""


@dataclass(frozen=True)
class PoolSettings:
    """How many connections a process holds, and how long a statement may run on them.

    Vital work may take one more of the first two kinds, so that it never waits for the others.
    Expensive queries have connections and a limit of their own, so that no other waits for them.
    """

    write: int = 8
    read: int = 4
    statement_timeout: float = 30.0
    expensive: int = 2
    expensive_timeout: float = 10.0


class PoolUse(NamedTuple):
    """How many connections a pool may hold, how many are taken, and how many wait for one."""

    size: int
    in_use: int
    waiting: int


def driver_url(url: str) -> str:
    """The SQLAlchemy URL (asyncpg) of a ``postgresql://`` or ``postgres://`` URL."""
    return make_url(url).set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)


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
        reading, writing = self._connect_args("reading"), self._connect_args("writing")
        searching = self._connect_args("searching")
        used, shared = self.pooler_url or url, leaving_nothing(name) if self.pooler_url else None
        # The pools never make anyone wait: who comes too early waits here, without a timeout.
        self._write_slots = Slots(self.pools.write)
        self._read_slots = Slots(self.pools.read)
        self._expensive_slots = Slots(self.pools.expensive, reserve=0)
        self.write, self.read, self.expensive = (
            engine_of(used, shared or arguments, pool_size=slots.size, max_overflow=0)
            for arguments, slots in (
                (writing, self._write_slots),
                (reading, self._read_slots),
                (searching, self._expensive_slots),
            )
        )
        # Who watches is not to wait behind those who are watched.
        self.watch = engine_of(url, reading, pool_size=1, max_overflow=0, pool_pre_ping=True)
        self.dedicated = engine_of(url, writing, poolclass=NullPool)
        # Connections between two uses. SQLAlchemy's own check-in and check-out take 0.2 ms, for a
        # reset that nothing needs here: every transaction is ended by whoever began it.
        self._idle: dict[AsyncEngine, deque[AsyncConnection]] = {
            self.write: deque(),
            self.read: deque(),
            self.expensive: deque(),
        }
        self.troubles = Troubles(self._takes_writes)
        self._probe: asyncio.Task[None] | None = None
        self._lost_for = ""
        self._outages = 0
        self._closed = False

    @property
    def trouble(self) -> str | None:
        """What is wrong with the database at the moment for everybody, in words."""
        return self.troubles.lasting if self.available else self._lost_for

    @property
    def available(self) -> bool:
        """False from the first sign of an outage until a probe has connected."""
        return self._probe is None

    def use(self) -> dict[str, PoolUse]:
        """How busy the pools are, by name."""
        pools = {
            "write": self._write_slots,
            "read": self._read_slots,
            "expensive": self._expensive_slots,
        }
        return {name: PoolUse(s.size, s.in_use, s.waiting) for name, s in pools.items()}

    @contextlib.asynccontextmanager
    async def connection(
        self, *, read_only: bool = False, vital: bool = False, expensive: bool = False
    ) -> AsyncIterator[AsyncConnection]:
        """A pooled connection in autocommit; read-only ones refuse every write.

        Vital work waits behind no other, and none waits behind what is expensive.
        A connection that died while it lay in the pool is replaced once, unseen. It goes back only
        outside a transaction and as a new one would be; any other is ended.
        """
        engine, slots = self.write, self._write_slots
        if read_only:
            engine, slots = self.read, self._read_slots
        if expensive:
            engine, slots = self.expensive, self._expensive_slots
        async with slots.slot(vital=vital):
            connection = await self._checkout(engine, slots.size)
            try:
                if engine is not self.write and self.pooler_url:
                    async with self._reading(driver_of(connection), expensive=expensive):
                        yield connection
                else:
                    yield connection
            except BaseException as error:
                if _leaves_unfit(error):
                    await asyncio.shield(discard(connection))
                raise
            finally:
                if self._is_usable(connection):
                    self._idle[engine].append(connection)
                else:
                    await asyncio.shield(discard(connection))

    def idle(self) -> list[AsyncConnection]:
        """The connections that nobody uses right now."""
        return [connection for idle in self._idle.values() for connection in idle]

    def note(self, error: BaseException) -> None:
        """Note why a command or a job failed, where the reason is the server's own.

        What ends a session is none yet: if there is no other to be had, that is an outage.
        """
        if is_outage(error):
            return
        if sqlstate(error) == READ_ONLY and self.troubles.read_only is None:
            # A session keeps what new transactions are allowed from when it began.
            self._outages += 1
        self.troubles.note(error)

    def lost(self, error: BaseException) -> None:
        """Note an outage: use no connection from before it, look for the server until it answers.

        The pools are not disposed of: what is in use would not find back into them, and be lost.
        """
        if not self.available or self._closed:
            return
        self._outages += 1
        self._lost_for = _words(error)
        self._probe = asyncio.create_task(self._until_reachable(error))

    async def verify(self) -> None:
        """Connect once on each way, outside the pools; raises what asyncpg raises."""
        reached = await reach(self.url)
        if self.pooler_url and (await reach(self.pooler_url)).place != reached.place:
            raise ConnectionError("the pooler leads to another database")

    async def close(self) -> None:
        """Close every connection."""
        self._closed = True
        await self.troubles.close()
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
            raise Unavailable(what=self._lost_for)
        if engine is self.write and self.troubles.read_only is not None:
            raise Unavailable(what=self.troubles.read_only)
        idle = self._idle[engine]
        while idle:
            connection = idle.pop()
            if self._is_usable(connection):
                return connection
            await discard(connection)
        return await self._connect(engine, size)

    async def _connect(self, engine: AsyncEngine, size: int) -> AsyncConnection:
        failures = 0
        # The pool may hold as many dead connections as it holds at all.
        for _ in range(size + 2):
            try:
                connection = await engine.connect()
            except Exception as error:  # whatever it was, there is no connection to be had
                failures += 1
                if failures == 2:
                    self.lost(error)
                    raise Unavailable(what=_words(error)) from error
                continue
            if self._is_usable(connection):
                return connection
            await discard(connection)
        self.lost(ConnectionError("connections are closed as soon as they are made"))
        raise Unavailable

    def _is_usable(self, connection: AsyncConnection) -> bool:
        """Whether it is open, outside a transaction, and from after the last outage."""
        if connection.closed or connection.invalidated or self._closed:
            return False
        outages = connection.sync_connection.info.setdefault("outages", self._outages)  # type: ignore[union-attr]  # connected
        driver = driver_of(connection)
        clean = not driver.is_closed() and not driver.is_in_transaction()
        return outages == self._outages and clean

    async def _until_reachable(self, error: BaseException) -> None:
        log.error("Postgres is unavailable: %s", error)
        attempts = 0
        while True:
            try:
                await reach(self.pooler_url or self.url)
            except Exception as failure:  # noqa: BLE001  whatever it was, it is not back yet
                self._lost_for = _words(failure)
                attempts += 1
                await asyncio.sleep(PROBE_INTERVAL)
            else:
                break
        self._probe = None
        log.warning("Postgres is available again after %d attempts", attempts + 1)

    @contextlib.asynccontextmanager
    async def _reading(self, driver: Any, *, expensive: bool) -> AsyncIterator[None]:
        """What a connection of the pools for queries is by itself, for one transaction."""
        begin = "".join(
            f"; SET LOCAL {setting} = {value}"
            for setting, value in self._limits(expensive=expensive).items()
        )
        await driver.execute(f"BEGIN READ ONLY{begin}{self.settings}")
        try:
            yield
        except Exception as error:
            # Otherwise, or when cancelled, the connection ends and its transaction with it.
            if not _leaves_unfit(error):
                await driver.execute("ROLLBACK")
            raise
        else:
            await driver.execute("ROLLBACK")

    async def _takes_writes(self) -> bool:
        """Whether a new session may write."""
        try:
            reached = await reach(self.pooler_url or self.url)
        except Standby as standby:
            self.lost(standby)
            return False
        except Exception:  # noqa: BLE001  whatever it was, nothing can be written now
            return False
        if not reached.read_only:
            self._outages += 1
        return not reached.read_only

    def _limits(self, *, expensive: bool) -> dict[str, str]:
        """What a statement may take. An expensive one works on one processor, whoever has more."""
        seconds = self.pools.expensive_timeout if expensive else self.pools.statement_timeout
        limits = {"statement_timeout": str(int(seconds * 1000))}
        return limits | ({"max_parallel_workers_per_gather": "0"} if expensive else {})

    def _connect_args(self, use: Literal["writing", "reading", "searching"]) -> dict[str, Any]:
        limits = self._limits(expensive=use == "searching")
        settings = {"application_name": self._name, **limits, **_SETTINGS}
        if use != "writing":
            settings["default_transaction_read_only"] = "on"
        return {"timeout": CONNECT_TIMEOUT, "server_settings": settings}


def describe(url: str) -> str:
    """A database URL without its password, to be shown."""
    return make_url(url).render_as_string(hide_password=True)


def _leaves_unfit(error: BaseException) -> bool:
    """Whether the session that met this is not to be used again."""
    return (
        # A limit of time that ended a statement in the middle is a cancellation, too.
        isinstance(error, (asyncio.CancelledError, TimeoutError))
        or is_outage(error)
        or is_stale(error)
        or sqlstate(error) == READ_ONLY
    )


def _words(error: BaseException) -> str:
    """Why there is no connection, as a caller may be told."""
    if isinstance(error, Standby):
        return "the database is a standby or in recovery"
    return trouble(error) or NOT_REACHED
