"""What an update really changes."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from contracts._declare import Entity


def changes(command: BaseModel, entity: Entity) -> dict[str, Any]:
    """The fields of the entity that the command names and that differ from what the entity has."""
    named = command.model_fields_set & type(entity).model_fields.keys()
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
