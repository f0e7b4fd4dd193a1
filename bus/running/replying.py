"""What a handler answers as what the caller gets: JSON that fits into a message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from bus.contract.entity import Entity
from bus.contract.errors import ReplyTooLarge
from bus.contract.items import EncodedItems, are_all
from bus.running.calls import Answer
from bus.running.registry import Bound
from bus.storage import sizes as _sizes
from bus.storage.shortening import may_be_short, shorten

MOST_FIXED: Final = 1024
"""Replies that are the same for all and kept as JSON, at most."""

_DECLARATIONS: Final = frozenset({"catalogue"})


class Replies:
    """Makes answers of replies; ``max_payload`` says how large a message may be at the moment."""

    def __init__(self, max_payload: Callable[[], int]) -> None:
        self._max_payload = max_payload
        self._fixed: dict[int, tuple[Any, bytes]] = {}

    def room(self) -> int:
        """The bytes that a reply may take."""
        return self._max_payload() - _sizes.HEADER_ROOM

    def answer(self, bound: Bound, reply: Any) -> Answer:
        """The answer with this reply; in a short form where it does not fit, else refused."""
        body = self._encoded(bound, reply)
        room = self.room()
        if len(body) <= room:
            return Answer(200, body, shortened=_is_shortened(reply))
        kind = type(reply)
        if may_be_short(kind) and len(short := shorten(kind, body, room)) <= room:
            return Answer(200, short, shortened=True)
        advice = bound.declared.reply.when_too_large
        raise ReplyTooLarge(bytes=len(body), limit=room, advice=advice)

    def _encoded(self, bound: Bound, reply: Any) -> bytes:
        """A reply as JSON; what tells of nothing but the declarations is encoded once for all."""
        if bound.handling.dependencies != _DECLARATIONS:
            return encoded(bound, reply)
        if (kept := self._fixed.get(id(reply))) is None:
            if len(self._fixed) >= MOST_FIXED:
                self._fixed.clear()
            # With the reply itself: as long as it is kept nothing else has its id.
            kept = self._fixed[id(reply)] = reply, encoded(bound, reply)
        return kept[1]


def encoded(bound: Bound, reply: Any) -> bytes:
    """A reply as JSON: of entities what they were encoded to once."""
    whole = type(reply) is bound.declared.reply and isinstance(reply, Entity)
    if whole or (bound.item is not None and are_all(bound.item, reply.items)):
        body: bytes = reply.encoded()
        return body
    return bound.serializer.to_json(reply)


def _is_shortened(reply: Any) -> bool:
    """Whether an item of a page had to be."""
    items = getattr(reply, "items", None)
    return isinstance(items, EncodedItems) and items.shortened
