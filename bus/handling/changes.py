"""What requests make of entities."""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import datetime
from typing import Any, TypeVar

from pydantic import BaseModel

from bus.contract.entity import Entity
from bus.contract.model import Request

E = TypeVar("E", bound=Entity)


def changes(command: BaseModel, entity: Entity, *, besides: Collection[str] = ()) -> dict[str, Any]:
    """The fields of the entity that the command names and that differ from what the entity has.

    Those in ``besides`` are no change: they say which state of the entity the caller means.
    """
    named = command.model_fields_set & type(entity).model_fields.keys() - {*besides}
    return {
        name: value
        for name in sorted(named)
        if not _same(value := getattr(command, name), getattr(entity, name))
    }


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON too, where true is not 1."""
    if isinstance(one, (dict, list)):
        return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    return bool(one == other)


def values_of(command: Request, *without: str) -> dict[str, Any]:
    """The values of a request by name, defaults among them, as its own types."""
    return {
        name: getattr(command, name) for name in type(command).model_fields if name not in without
    }


def with_values(entity: E, now: datetime, values: dict[str, Any]) -> E:
    """The entity with these values; the very same one where it has them already."""
    changed = changes(type(entity).model_construct(**values), entity)
    return entity.evolve(now, **changed) if changed else entity
