"""What a request makes of an entity that it describes whole."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar

from contracts._declare import Entity, Request
from handlers._changes import changes

E = TypeVar("E", bound=Entity)


def made(entity: type[E], now: datetime, **values: Any) -> E:
    """A new entity of these values, at its first version."""
    return entity(version=1, created_at=now, updated_at=now, **values)


def described(command: Request, *without: str) -> dict[str, Any]:
    """The values of a request by name, defaults among them, as its own types."""
    return {
        name: getattr(command, name) for name in type(command).model_fields if name not in without
    }


def replaced(entity: E, now: datetime, values: dict[str, Any]) -> E:
    """The entity with these values; the very same one where it has them already."""
    changed = changes(type(entity).model_construct(**values), entity)
    return entity.evolve(now, **changed) if changed else entity
