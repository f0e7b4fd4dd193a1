"""Which event a message says that it is; whether that is true, `ownership` says."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_POSITION: Final = re.compile(r"[1-9][0-9]{0,17}")
_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Claim(NamedTuple):
    """Which event a message says that it is."""

    position: int
    event_id: str


def claimed(headers: dict[str, str] | None) -> Claim | None:
    """Which event the headers name; None if they are not those of an event."""
    if headers is None:
        return None
    position, event_id = headers.get("Fleet-Position", ""), headers.get("Nats-Msg-Id", "")
    if not _POSITION.fullmatch(position) or not _ID.fullmatch(event_id):
        return None
    if headers.get("ce-id") != event_id:
        return None
    return Claim(int(position), event_id)
