"""How large an entity may become: so large that every event that tells of it fits a message.

An event holds its entity, may hold a part of it a second time (an agent's progress, a late result),
and adds facts of a bounded size. Sizes are those of JSON, escapes included. A command that would
make an entity larger is refused and stores nothing. What somebody stored before goes on: a command
that hardly adds to it is done, and so are reactions and jobs, which add no texts of others; the
relay tells such an entity in a short form.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

from bus.contract.entity import Entity
from bus.contract.errors import EntityTooLarge
from bus.contract.event import EVENTS, Event
from bus.contract.fields import MAX_INT4

HEADER_ROOM = 4096
"""Bytes of a message that are kept for its headers."""

FACT_ROOM = 32 * 1024
"""Bytes that an event may add to its entity and to parts of it."""

PAGE_ROOM = 4096
"""Bytes of a page beside its items: its cursor, its total."""

LITTLE = 256
"""Bytes that states, times and names may add to an entity at its limit, or beyond it already."""

SLACK = 8 * 1024
"""Bytes beyond its limit that an entity may come to have in such small steps."""

_max_payload: ContextVar[int | None] = ContextVar("max_payload", default=None)


@contextmanager
def measured(max_payload: int) -> Iterator[None]:
    """Refuse what is too large for a message of this size while the block lasts."""
    token = _max_payload.set(max_payload)
    try:
        yield
    finally:
        _max_payload.reset(token)


def room_for_page() -> int:
    """How many bytes the items of a page may have; whatever they have where nothing is measured."""
    max_payload = _max_payload.get()
    return MAX_INT4 if max_payload is None else max_payload - HEADER_ROOM - PAGE_ROOM


def limit(entity: type[Entity], max_payload: int) -> int:
    """How many bytes an entity may have."""
    whole = limit_of_rows(max_payload)
    return whole // 2 if _is_told(entity) else whole


def limit_of_rows(max_payload: int) -> int:
    """How many bytes a row may have that is no entity: no event tells of it."""
    return max_payload - HEADER_ROOM - FACT_ROOM


def measuring() -> int | None:
    """The size of a message that what is stored has to fit; None where nothing is measured."""
    return _max_payload.get()


def require_fitting(entities: Iterable[Entity]) -> None:
    """Refuse entities that a command makes too large."""
    max_payload = measuring()
    if max_payload is None:
        return
    for entity in entities:
        if (refusal := too_large(entity, entity.origin, max_payload)) is not None:
            raise refusal


def too_large(entity: Entity, before: Entity | None, max_payload: int) -> EntityTooLarge | None:
    """The refusal of an entity that has become too large; ``before`` is what it was, if it was."""
    if entity is before:
        return None
    size, most = len(entity.encoded()), limit(type(entity), max_payload)
    if size <= most:
        return None
    was = 0 if before is None else len(before.encoded())
    if was and size <= was + LITTLE and (size <= most + SLACK or was > most + SLACK):
        return None
    return EntityTooLarge(entity=entity.noun, bytes=size, limit=most)


def require_room_for(event: Event, size: int, max_payload: int) -> None:
    """Refuse an event that is too large for its facts, and not for an entity that is too large."""
    entity = getattr(event, event.fact.entity)
    if isinstance(entity, Entity) and len(entity.encoded()) <= limit(type(entity), max_payload):
        raise EntityTooLarge(entity=entity.noun, bytes=size, limit=max_payload - HEADER_ROOM)


@cache
def _is_told(entity: type[Entity]) -> bool:
    told = (event.model_fields[event.fact.entity].annotation for event in EVENTS.values())
    return any(kind is entity for kind in told)
