"""An outbox row as the message that the stream gets."""

import re
from collections.abc import Sequence
from datetime import UTC
from typing import Final, NamedTuple
from urllib.parse import quote

from persistence._outbox import OutboxRow

BATCH_LIMIT: Final = 1000
"""Messages in an atomic batch, at most; a server may be configured to take fewer."""

_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]+")


class Message(NamedTuple):
    """What is published: CloudEvents 1.0 in binary mode."""

    subject: str
    headers: dict[str, str]
    body: bytes


def messages(rows: Sequence[OutboxRow], source: str) -> list[Message]:
    """The events of a transaction. If no batch can hold them all, each says which part it is of."""
    of = -(-len(rows) // BATCH_LIMIT)
    found = [message(row, source) for row in rows]
    if of > 1:
        for place, told in enumerate(found):
            told.headers["Fleet-Part"] = f"{place // BATCH_LIMIT + 1}/{of}"
    return found


def message(row: OutboxRow, source: str) -> Message:
    """The event of an outbox row."""
    headers = {
        "Nats-Msg-Id": row.event_id,
        "ce-id": row.event_id,
        "ce-specversion": "1.0",
        "ce-type": row.type,
        "ce-source": source,
        "ce-subject": row.entity_id,
        "ce-time": _time(row),
        "ce-datacontenttype": "application/json",
        "Fleet-Position": str(row.position),
    }
    if row.cause:
        headers["Fleet-Cause"] = row.cause
    if row.traceparent:
        headers["traceparent"] = row.traceparent
    return Message(f"events.{row.type}.{_token(row.entity_id)}", headers, row.data.encode())


def _time(row: OutboxRow) -> str:
    recorded = row.recorded_at.astimezone(UTC).replace(tzinfo=None)
    return recorded.isoformat(timespec="microseconds") + "Z"


def _token(entity_id: str) -> str:
    """One subject token: an id with a dot or a wildcard would land where nobody looks for it."""
    if _PLAIN.fullmatch(entity_id):
        return entity_id
    return quote(entity_id, safe="~:@+,").replace(".", "%2E") or "%00"
