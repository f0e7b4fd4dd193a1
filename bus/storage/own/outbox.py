"""Queries of the relay: the outbox in position order, and how far the stream has it."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage.locks import RELAY
from bus.storage.own.outbox_partitions import WIDTH

BODIES_AT_ONCE: Final = 8 * 1024 * 1024
"""Bytes of bodies that come with a page."""

_NAME: Final = "events"

_NOBODY: Final = 2**63 - 1


class OutboxRow(NamedTuple):
    """One event as its transaction recorded it; `data` is the body, byte for byte.

    Of a page that holds too much at once the later rows come without it: see `bodies`.
    """

    position: int
    xid: int
    event_id: str
    type: str
    entity_id: str
    data: str | None
    cause: str | None
    traceparent: str | None
    recorded_at: datetime
    size: int = 0
    """Bytes of the body."""


class OutboxPage(NamedTuple):
    """Rows in position order, and the lowest xid still running in the snapshot that read them."""

    rows: list[OutboxRow]
    xmin: int


class RelayState(NamedTuple):
    """How far the stream has the outbox, and an xid assigned while this was read."""

    cursor: int
    holes: list[tuple[int, int]]
    stream_sequence: int
    xid: int


class Backlog(NamedTuple):
    """About how many events wait (rolled back positions count too), and for how long the oldest.

    `position` is the last that was committed, `cursor` the last that the stream is known to have.
    `holes` counts the positions before the cursor whose owners have not ended.
    """

    waiting: int
    oldest: timedelta | None
    position: int
    cursor: int
    holes: int


# Without the keepalives a relay whose machine vanished would hold the lock for two hours. The
# state need not survive a crash of the database: an older one is completed from the stream.
_PREPARE_SESSION = text("""
    SELECT set_config('tcp_keepalives_idle', '5', false),
           set_config('tcp_keepalives_interval', '2', false),
           set_config('tcp_keepalives_count', '3', false),
           set_config('synchronous_commit', 'off', false)
""")

# The update that changes nothing assigns the xid and makes the row on the first start.
_LOAD_STATE = text("""
    INSERT INTO bus.relay_state AS state (name) VALUES (:name)
    ON CONFLICT (name) DO UPDATE SET name = excluded.name
    RETURNING state.cursor, CAST(state.holes AS text), state.stream_sequence,
              CAST(CAST(pg_current_xact_id() AS text) AS bigint)
""")

_PROGRESS = text("""
    SELECT cursor, CAST(holes AS text) FROM bus.relay_state WHERE name = :name
""")

_SAVE_STATE = """
    UPDATE bus.relay_state
    SET cursor = :cursor, holes = CAST(:holes AS jsonb), stream_sequence = :stream_sequence,
        updated_at = clock_timestamp()
    WHERE {found}
    RETURNING CAST(CAST(pg_current_xact_id() AS text) AS bigint), CAST(ctid AS text)
"""

_SAVE = text(_SAVE_STATE.format(found="name = :name"))

# As long as somebody reads in an old snapshot no version of the row can go. Found by the index all
# of them are visited each time; found by its place, one is.
_SAVE_IN_PLACE = text(
    _SAVE_STATE.format(found="name = :name AND ctid = CAST(CAST(:place AS text) AS tid)")
)

_PLACE: Final = "relay_state_place"

# One statement, so that the rows and xmin come from one snapshot. `rest` completes the
# transactions of a page that was cut off, so that each can enter the stream as a whole. Bodies are
# counted as text, for that is what memory they take: compressed they may be a hundredth of it.
_READ = text(f"""
    WITH wanted AS MATERIALIZED (
        SELECT * FROM unnest(CAST(:firsts AS bigint[]), CAST(:lasts AS bigint[])) AS w(first, last)
    ), page AS MATERIALIZED (
        SELECT found.* FROM wanted CROSS JOIN LATERAL (
            SELECT * FROM bus.outbox WHERE position BETWEEN wanted.first AND wanted.last
            ORDER BY position LIMIT :page
        ) AS found
        ORDER BY position LIMIT :page
    ), cut AS (
        SELECT max(position) AS position FROM page HAVING count(*) = :page
    ), rest AS (
        SELECT ahead.* FROM cut CROSS JOIN LATERAL (
            SELECT * FROM bus.outbox WHERE position > cut.position
            ORDER BY position LIMIT :lookahead
        ) AS ahead
        WHERE ahead.xid IN (SELECT xid FROM page)
          AND EXISTS (
              SELECT FROM wanted WHERE ahead.position BETWEEN wanted.first AND wanted.last)
    ), snapshot AS (
        SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint) AS xmin
    )
    SELECT snapshot.xmin, event.position, CAST(CAST(event.xid AS text) AS bigint),
           CAST(event.event_id AS text), event.type, event.entity_id,
           CASE WHEN sum(event.size) OVER (ORDER BY event.position) <= {BODIES_AT_ONCE}
                THEN CAST(event.data AS text) END,
           event.cause, event.traceparent, event.recorded_at, event.size
    FROM snapshot
    LEFT JOIN (
        SELECT *, octet_length(CAST(data AS text)) AS size
        FROM (SELECT * FROM page UNION ALL SELECT * FROM rest) AS found
    ) AS event ON true
    ORDER BY event.position
""")

_BODIES = text("""
    SELECT position, CAST(data AS text) AS data FROM bus.outbox
    WHERE position = ANY (CAST(:positions AS bigint[]))
""")

# However large the outbox is: the ends of what waits, and a bounded look into holes. Positions
# between what was last written into a partition and the next one were never taken.
_BACKLOG = text(f"""
    WITH state AS (
        SELECT coalesce(max(cursor), 0) AS cursor, coalesce(max(CAST(holes AS text)), '[]') AS holes
        FROM bus.relay_state WHERE name = :name
    ), hole AS (
        SELECT CAST(range ->> 0 AS bigint) AS first, CAST(range ->> 1 AS bigint) AS last
        FROM state, jsonb_array_elements(CAST(state.holes AS jsonb)) AS range LIMIT :look
    ), appeared AS (
        SELECT found.recorded_at FROM hole CROSS JOIN LATERAL (
            SELECT recorded_at FROM bus.outbox WHERE position BETWEEN hole.first AND hole.last
            ORDER BY position LIMIT :look
        ) AS found LIMIT :look
    ), beyond AS (
        SELECT ahead.recorded_at FROM state CROSS JOIN LATERAL (
            SELECT recorded_at FROM bus.outbox WHERE position > state.cursor
            ORDER BY position LIMIT 1
        ) AS ahead
    ), reached AS (
        SELECT coalesce((SELECT max(position) FROM bus.outbox), 0) AS position
    ), waiting AS (
        SELECT ended.last - greatest(state.cursor, part * {WIDTH} - 1) AS events
        FROM state, reached, generate_series(
            state.cursor / {WIDTH}, least(reached.position, state.cursor + 1000 * {WIDTH}) / {WIDTH}
        ) AS part CROSS JOIN LATERAL (
            SELECT max(position) AS last FROM bus.outbox
            WHERE position >= part * {WIDTH} AND position < (part + 1) * {WIDTH}
        ) AS ended
    )
    SELECT (SELECT CAST(coalesce(sum(events), 0) AS bigint) FROM waiting WHERE events > 0)
               + (SELECT count(*) FROM appeared),
           clock_timestamp() - least((SELECT min(recorded_at) FROM appeared),
                                     (SELECT recorded_at FROM beyond)),
           reached.position, state.cursor,
           CAST((SELECT coalesce(sum(least(last - first + 1, :look)), 0) FROM hole) AS bigint)
    FROM state, reached
""")

# Whoever takes a position does it in an INSERT, and keeps its lock on the table until it has ended
# and can be seen to have. The xid of a lock has 32 bits; it is near the xids of now.
_LOWEST_WRITER = text("""
    SELECT min(now.xid + mod(mod(
        CAST(CAST(owner.transactionid AS text) AS bigint) - now.xid + 2147483648,
        4294967296) + 4294967296, 4294967296) - 2147483648)
    FROM pg_locks AS written
    JOIN pg_locks AS owner USING (virtualtransaction)
    CROSS JOIN (
        SELECT CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS text) AS bigint) AS xid
    ) AS now
    WHERE written.locktype = 'relation' AND written.granted
      AND written.relation = CAST('bus.outbox' AS regclass)
      AND written.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND written.mode <> 'AccessShareLock'
      AND owner.locktype = 'transactionid' AND owner.mode = 'ExclusiveLock' AND owner.granted
""")

_LOOK: Final = 1000
"""Holes that the backlog looks into, and rows that it counts in them, at most."""


async def prepare_relay_session(conn: AsyncConnection) -> None:
    """Settings of a session that is the relay's alone."""
    await conn.execute(_PREPARE_SESSION)


async def try_relay_lock(conn: AsyncConnection) -> bool:
    """Become the active relay for as long as this session lives, if no other is."""
    return await RELAY.try_to_own(conn)


async def load_relay_state(conn: AsyncConnection) -> RelayState:
    """The state as last saved; at the very first start, the beginning."""
    cursor, holes, sequence, xid = (await conn.execute(_LOAD_STATE, {"name": _NAME})).one()
    return RelayState(cursor, [(first, last) for first, last in json.loads(holes)], sequence, xid)


async def relay_progress(conn: AsyncConnection) -> tuple[int, list[tuple[int, int]]]:
    """The position that the stream has come to, and the ranges below it that it has not."""
    found = (await conn.execute(_PROGRESS, {"name": _NAME})).one_or_none()
    if found is None:
        return 0, []
    return found[0], [(first, last) for first, last in json.loads(found[1])]


async def save_relay_state(
    conn: AsyncConnection, cursor: int, holes: Sequence[tuple[int, int]], stream_sequence: int
) -> int:
    """Save the state; returns the xid it was done with, assigned after every earlier read."""
    values = {
        "name": _NAME,
        "cursor": cursor,
        "holes": json.dumps(holes),
        "stream_sequence": stream_sequence,
    }
    info = conn.sync_connection.info if conn.sync_connection else {}
    found = None
    if _PLACE in info:
        in_place = {**values, "place": info[_PLACE]}
        found = (await conn.execute(_SAVE_IN_PLACE, in_place)).one_or_none()
    if found is None:
        found = (await conn.execute(_SAVE, values)).one()
    xid, info[_PLACE] = found
    return int(xid)


async def lowest_writer(conn: AsyncConnection) -> int:
    """The lowest xid of whoever has written to the outbox and not ended; without any, the highest.

    Rows read after this show what everybody with a lower xid has recorded.
    """
    lowest = await conn.scalar(_LOWEST_WRITER)
    return _NOBODY if lowest is None else int(lowest)


async def read_outbox(
    conn: AsyncConnection, wanted: Sequence[tuple[int, int]], page: int, lookahead: int
) -> OutboxPage:
    """The first `page` events inside the wanted ranges, and the rest of their transactions.

    The rest is looked for among the next `lookahead` rows.
    """
    values = {
        "firsts": [first for first, _ in wanted],
        "lasts": [last for _, last in wanted],
        "page": page,
        "lookahead": lookahead,
    }
    found = (await conn.execute(_READ, values)).all()
    rows = [OutboxRow(*event) for _, *event in found if event[0] is not None]
    return OutboxPage(rows, found[0][0])


async def bodies(conn: AsyncConnection, positions: Sequence[int]) -> dict[int, str]:
    """The bodies of the events at these positions."""
    rows = await conn.execute(_BODIES, {"positions": list(positions)})
    return {row.position: row.data for row in rows}


async def backlog(conn: AsyncConnection) -> Backlog:
    """What waits beyond the cursor and in holes, at a cost that does not grow with the outbox."""
    return Backlog(*(await conn.execute(_BACKLOG, {"name": _NAME, "look": _LOOK})).one())
