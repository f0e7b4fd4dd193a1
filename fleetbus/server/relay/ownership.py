"""Which messages of the stream are ours: the rule stands here, once.

A message is an event of ours if it has an event id (``ce-id`` and ``Nats-Msg-Id``, the same) and a
position, the outbox has that id at that position, it says what the row says (subject, headers and
body, or a short form of the body), and it is the first in the stream that does. What else a header
says proves nothing.

Nobody can change a message of the stream. So each is judged once, with its body, when it is new:
behind what the active relay knows to be its own. What lies before that is only compared by headers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from nats.aio.client import Client
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage.own import foreign_messages as _foreign
from bus.storage.own.outbox import OutboxRow, RelayState
from bus.storage.own.short_forms import MARK, is_short_form
from fleetbus.server.relay.claims import claimed
from fleetbus.server.relay.events import headers_of, one_line, subject, subject_of
from fleetbus.server.relay.reading import Found, next_on

_FENCE: Final = "Nats-Expected-Last-Sequence"
_IN_BATCH: Final = "Nats-Batch-Sequence"
_OURS: Final = {
    "Nats-Msg-Id", _FENCE, _IN_BATCH, "Nats-Batch-Id", "Nats-Batch-Commit",
    "Nats-Stream-Source",  # of a stream that was copied from another one
    "Nats-Msg-Size",  # of a message that was read without its body
}  # fmt: skip
"""Headers for the server that an event of ours may have. Others make it do something: expire the
message, roll others up, deliver it later."""

_SAME: Final = ("ce-specversion", "ce-type", "ce-subject", "ce-time", "ce-datacontenttype")
_MAY_BE_SHORT: Final = ("Fleet-Cause", "traceparent")


def carries(found: Found, row: OutboxRow) -> bool:
    """Whether a message tells this event, whatever it was published by."""
    headers = found.headers
    if headers is None or found.subject != subject(row) or _commands(headers):
        return False
    own = headers_of(row, "", "")
    short = MARK in headers
    for name in ("Nats-Msg-Id", "ce-id", "Fleet-Position", *_SAME):
        if headers.get(name) != one_line(own[name]).strip():
            return False
    for name in _MAY_BE_SHORT:
        value = headers.get(name)
        if value != _written(own.get(name)) and not (short and value is None):
            return False
    return found.body is None or row.data is None or _is_body(found.body, row.data, short=short)


def looks_published_by_a_relay(found: Found) -> bool:
    """Whether a relay may have put it there, of a database that knows more than this one.

    A relay says behind which message an event has to stand, and the server sees to it.
    """
    headers = found.headers
    if headers is None or claimed(headers) is None or _commands(headers):
        return False
    if any(name not in headers for name in (*_SAME, "ce-source")):
        return False
    if found.subject != subject_of(headers["ce-type"], headers["ce-subject"]):
        return False
    if headers.get(_IN_BATCH, "1") != "1":
        return True
    return headers.get(_FENCE) == str(found.sequence - 1)


def is_pending(state: RelayState, position: int) -> bool:
    """Whether the relay, when it saved its state, had this event still to publish."""
    holes = any(first <= position <= last for first, last in state.holes)
    return position > state.cursor or holes


async def rows_of(
    conn: AsyncConnection, page: Iterable[Found], *, bodies: bool = True
) -> dict[int, OutboxRow]:
    """What the outbox has at the positions that these messages name."""
    claims = [claim for found in page if (claim := claimed(found.headers))]
    if not claims:
        return {}
    return await _foreign.rows_at(conn, [claim.position for claim in claims], bodies=bodies)


async def is_copy(client: Client, stream: str, found: Found, row: OutboxRow) -> bool:
    """Whether the stream holds the event of this message before it: then this one is a copy."""
    sequence = await held_at(client, stream, row)
    return sequence is not None and sequence < found.sequence


async def held_at(client: Client, stream: str, row: OutboxRow) -> int | None:
    """The sequence at which the stream holds an event, None if it does not.

    Events of one type on one entity share a subject, so few have to be looked at.
    """
    sequence, own = 1, subject(row)
    while found := await next_on(client, stream, own, sequence):
        if carries(found, row):
            return found.sequence
        sequence = found.sequence + 1
    return None


def _commands(headers: dict[str, str]) -> bool:
    """Whether it has headers that make the server do something with the message."""
    return any(name.startswith("Nats-") and name not in _OURS for name in headers)


def _is_body(body: bytes, data: str, *, short: bool) -> bool:
    return body == data.encode() or (short and is_short_form(body, data))


def _written(value: str | None) -> str | None:
    return one_line(value).strip() if value else None
