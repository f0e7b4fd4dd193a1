"""What a person does about stream and database: verify one by the other, accept a timeline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Final, NamedTuple

from nats.js import JetStreamContext
from nats.js.api import StreamInfo
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage.own import outbox as _outbox
from bus.storage.own import reconciliation as _reconciliation
from bus.storage.own import timelines as _timelines
from fleetbus.server.relay.comparison import Comparison, TimelineConflict, created_at, expected

_PAGE: Final = 5000


class Accepted(NamedTuple):
    """The timeline of the database from here on."""

    sequence: int
    """What is in the stream after this sequence is of it."""
    position: int
    """Its events have positions above this one."""
    moved: int
    """Events that were recorded before the decision and got new positions."""


async def compare(conn: AsyncConnection, js: JetStreamContext, stream: str) -> Comparison:
    """Compare all of the stream with all of the outbox, changing nothing."""
    # The state first: all that it says was published is in the stream by then.
    state = await _outbox.load_relay_state(conn)
    comparison = Comparison(conn, js, await js.stream_info(stream))
    async for _ in comparison.read_stream(0):
        pass
    async for _ in comparison.look_for(expected(state, None)):
        pass
    return comparison


async def conflict(conn: AsyncConnection, js: JetStreamContext, info: StreamInfo) -> str:
    """What in the stream contradicts the database; empty if nothing does."""
    try:
        async for _ in Comparison(conn, js, info).read_stream(0):
            pass
    except TimelineConflict as found:
        return str(found)
    return ""


async def lock_out_relays(conn: AsyncConnection, seconds: float) -> bool:
    """Become what the relays wait for; false if one of them works all the time."""
    try:
        async with asyncio.timeout(seconds):
            while not await _outbox.try_relay_lock(conn):  # noqa: ASYNC110  others hold it
                await asyncio.sleep(0.05)
    except TimeoutError:
        return False
    return True


async def accept(conn: AsyncConnection, js: JetStreamContext, stream: str) -> Accepted:
    """Go on with the database's timeline behind all that the stream holds.

    `conn` is in autocommit mode and holds the relays' lock. What was recorded since the database
    went back and is not in the stream gets positions above all that are there.
    """
    state = await _outbox.load_relay_state(conn)
    comparison = Comparison(conn, js, await js.stream_info(stream))
    sequence = comparison.info.state.last_seq
    async for _ in comparison.read_stream(0, accepted=sequence):
        pass
    await conn.commit()
    await conn.execution_options(isolation_level="READ COMMITTED")
    async with conn.begin():
        await _timelines.hold_positions(conn)
        taken = (await _reconciliation.extent(conn)).taken
        base = position = max(comparison.highest, taken)
        if await _any_shared(conn, comparison, state.cursor):
            position = await _move_unpublished(conn, comparison, state.cursor, taken, base)
        await _timelines.accept(
            conn, created_at(comparison.info), sequence=sequence, position=position
        )
        detail = f"the timeline was accepted from stream sequence {sequence} on; not compared yet"
        await _reconciliation.save_verdict(conn, "incomplete", detail=detail)
    return Accepted(sequence, position, position - base)


async def _any_shared(conn: AsyncConnection, comparison: Comparison, cursor: int) -> bool:
    """Whether anything unpublished has a position that the stream's other timeline may have."""
    async for _ in _unpublished(conn, comparison, cursor, comparison.highest):
        return True
    return False


async def _move_unpublished(
    conn: AsyncConnection, comparison: Comparison, cursor: int, last: int, base: int
) -> int:
    """Move all that the stream does not hold above `base`, in its order; returns where it ends."""
    async for positions in _unpublished(conn, comparison, cursor, last):
        await _timelines.move(conn, positions, base)
        base += len(positions)
    return base


async def _unpublished(
    conn: AsyncConnection, comparison: Comparison, cursor: int, last: int
) -> AsyncGenerator[list[int]]:
    after = cursor
    while page := await _reconciliation.positions_between(
        conn, after + 1, last, since=None, limit=_PAGE
    ):
        after = page[-1]
        if positions := [found for found in page if found not in comparison.seen]:
            yield positions
