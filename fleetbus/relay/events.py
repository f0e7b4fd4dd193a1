"""An outbox row as the message that the stream gets."""

from datetime import UTC
from typing import NamedTuple
from urllib.parse import quote

from persistence._outbox import OutboxRow


class Message(NamedTuple):
    """What is published: CloudEvents 1.0 in binary mode."""

    subject: str
    headers: dict[str, str]
    body: bytes


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
    return quote(entity_id, safe="~:@+,").replace(".", "%2E") or "%00"
