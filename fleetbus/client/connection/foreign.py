"""Which messages on ``events.>`` are events, and which are somebody else's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

MOST_DIGITS: Final = 19
"""Digits of the highest position there can be."""


def is_event(headers: Mapping[str, str] | None) -> bool:
    """Whether a message with these headers may be an event of ours: it has an id and a position."""
    return bool(headers and headers.get("ce-id")) and position_of(headers) is not None


def position_of(headers: Mapping[str, str] | None) -> int | None:
    """The place in the outbox that the headers name, or None."""
    text = (headers or {}).get("Fleet-Position", "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS else None
