"""Ways to a Postgres: engines of connections, and a look at the server beside them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, NamedTuple

import asyncpg
import pydantic_core
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

CONNECT_TIMEOUT = 3.0
"""Seconds that one attempt to connect may take."""

_LOOK = """
    SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on',
           pg_postmaster_start_time(), current_database()
"""


class Standby(ConnectionError):
    """What was reached is no primary."""


class ServerState(NamedTuple):
    """A server as a fresh connection finds it."""

    read_only: bool
    place: tuple[Any, ...]
    """What tells one server and database from another."""


async def reach(url: str) -> ServerState:
    """Connect once, with no setting of ours; a standby is refused."""
    async with asyncio.timeout(CONNECT_TIMEOUT):
        connection = await asyncpg.connect(
            _plain(url), timeout=CONNECT_TIMEOUT, statement_cache_size=0
        )
        try:
            row = await connection.fetchrow(_LOOK)
        finally:
            await connection.close(timeout=CONNECT_TIMEOUT)
    assert row is not None
    standby, read_only, *place = row
    if standby:
        raise Standby("the server is a standby or in recovery")
    return ServerState(read_only, tuple(place))


def engine_of(url: str, connect_args: dict[str, Any], **pool: Any) -> AsyncEngine:
    """An engine whose connections are in autocommit."""
    return create_async_engine(
        make_url(url).set(drivername="postgresql+asyncpg"),
        isolation_level="AUTOCOMMIT",
        json_deserializer=pydantic_core.from_json,
        connect_args=connect_args,
        **pool,
    )


def leaving_nothing(name: str) -> dict[str, Any]:
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


async def discard(connection: AsyncConnection) -> None:
    """End a connection, whatever state it is in."""
    with contextlib.suppress(Exception):
        await connection.invalidate()
    with contextlib.suppress(Exception):
        await connection.close()


def _plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
