"""An outbox row as the message that the stream gets."""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC
from functools import lru_cache
from hashlib import sha256
from typing import Final, NamedTuple
from urllib.parse import quote

from bus.storage.own.outbox import OutboxRow
from bus.storage.own.short_forms import MARK, shortened

BATCH_LIMIT: Final = 1000
"""Messages in an atomic batch, at most; a server may be configured to take fewer."""

BATCH_BYTES: Final = 32 * 1024 * 1024
"""Bytes of the bodies in an atomic batch, at most: what is sent at once is held in memory."""

FENCES: Final = 256
"""Bytes of the headers that fence a message and put it into a batch, at most."""

_OTHERS: Final = 1024
"""Bytes of the other headers, at most."""

_LARGEST: Final = 1024 * 1024
"""What a body counts at most when a transaction is divided: the same whatever a server takes."""

_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST_TOKEN: Final = 1024


class Message(NamedTuple):
    """What is published: CloudEvents 1.0 in binary mode."""

    subject: str
    headers: dict[str, str]
    body: bytes


class EventTooLarge(Exception):
    """Not even the headers of an event fit what the server takes."""


def messages(rows: Sequence[OutboxRow], source: str, *, limit: int | None = None) -> list[Message]:
    """The events of a transaction. If no batch can hold them all, each says which part it is of."""
    divided = parts(rows)
    return [
        message(row, source, limit=limit, part=part_of(number, len(divided)))
        for number, part in enumerate(divided, start=1)
        for row in part
    ]


def message(row: OutboxRow, source: str, *, limit: int | None = None, part: str = "") -> Message:
    """The event of an outbox row, in its short form where a message may not be so large.

    `limit` is what the server takes now, headers and body together.
    """
    assert row.data is not None
    whole = Message(subject(row), headers_of(row, source, part), row.data.encode())
    if limit is None or _surely_fits(row, whole, limit) or _size(whole) <= limit:
        return whole
    headers = {**whole.headers, MARK: "true"}
    noun = row.type.partition(".")[0]
    room = limit - _size(whole._replace(headers=headers, body=b""))
    short = whole._replace(headers=headers, body=shortened(row.data, noun, room))
    for left_out in ("traceparent", "Fleet-Cause"):
        if _size(short) > limit:
            headers.pop(left_out, None)
    if _size(short) > limit:
        raise EventTooLarge(
            f"the headers of event {row.event_id} take {_size(short)} bytes, and NATS takes "
            f"{limit}: raise max_payload of the server, or max_msg_size of the stream"
        )
    return short


def parts(rows: Sequence[OutboxRow]) -> list[list[OutboxRow]]:
    """A transaction, divided where one batch does not hold it: the same way each time."""
    divided: list[list[OutboxRow]] = [[]]
    size = 0
    for row in rows:
        weight = weight_of(row)
        if divided[-1] and (len(divided[-1]) == BATCH_LIMIT or size + weight > BATCH_BYTES):
            divided.append([])
            size = 0
        divided[-1].append(row)
        size += weight
    return divided


def part_of(number: int, of: int) -> str:
    """Which part of its transaction an event says that it is of; nothing where there is one."""
    return f"{number}/{of}" if of > 1 else ""


def weight_of(row: OutboxRow) -> int:
    """What a row counts where bytes are."""
    return min(row.size or len(row.data or ""), _LARGEST)


def subject(row: OutboxRow) -> str:
    """Where the event is told. Nothing that is recorded makes it one that the server refuses."""
    return subject_of(row.type, row.entity_id)


def subject_of(event_type: str, entity_id: str) -> str:
    """Where an event of this type on this entity is told."""
    return f"events.{_kind(event_type)}.{_token(entity_id)}"


def time_of(row: OutboxRow) -> str:
    """When its transaction recorded it, as `ce-time` has it."""
    recorded = row.recorded_at.astimezone(UTC).replace(tzinfo=None)
    return recorded.isoformat(timespec="microseconds") + "Z"


def one_line(value: str) -> str:
    """A header's value as it is sent: a line end would begin another header."""
    if "\n" in value or "\r" in value:
        return value.replace("\r", " ").replace("\n", " ")
    return value


def header_lines(headers: dict[str, str]) -> Iterator[str]:
    """Headers as the protocol has them."""
    for name, value in headers.items():
        yield f"{name}: {one_line(value)}"


def headers_of(row: OutboxRow, source: str, part: str) -> dict[str, str]:
    """The headers of an event, of this part of its transaction if that was divided."""
    headers = {
        "Nats-Msg-Id": row.event_id,
        "ce-id": row.event_id,
        "ce-specversion": "1.0",
        "ce-type": row.type,
        "ce-source": source,
        "ce-subject": row.entity_id,
        "ce-time": time_of(row),
        "ce-datacontenttype": "application/json",
        "Fleet-Position": str(row.position),
    }
    if row.cause:
        headers["Fleet-Cause"] = row.cause
    if row.traceparent:
        headers["traceparent"] = row.traceparent
    if part:
        headers["Fleet-Part"] = part
    return headers


def _surely_fits(row: OutboxRow, whole: Message, limit: int) -> bool:
    """Without looking at each header, which is what relaying a backlog would cost."""
    source = whole.headers["ce-source"]
    texts = (row.type, row.entity_id, row.cause or "", row.traceparent or "", source)
    return len(whole.body) + 4 * sum(map(len, texts)) + _OTHERS + FENCES <= limit


def _size(whole: Message) -> int:
    """Bytes that the server counts, with what fences the message."""
    lines = sum(len(line.encode()) + 2 for line in header_lines(whole.headers))
    return len("NATS/1.0\r\n\r\n") + lines + FENCES + len(whole.body)


@lru_cache(maxsize=1024)
def _kind(event_type: str) -> str:
    return ".".join(map(_token, event_type.split(".")))


def _token(text: str) -> str:
    """One subject token: an id with a dot or a wildcard would land where nobody looks for it."""
    if _PLAIN.fullmatch(text) and len(text) <= _LONGEST_TOKEN:
        return text
    quoted = quote(text, safe="~:@+,").replace(".", "%2E") or "%00"
    if len(quoted) <= _LONGEST_TOKEN:
        return quoted
    return f"{quoted[:64]}~{sha256(text.encode()).hexdigest()}"
