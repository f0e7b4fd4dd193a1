"""The entities that a function needs, or that must exist for it: which, and by which field."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from bus.contract.entity import Entity
from bus.contract.operation import Operation
from bus.contract.references import references
from bus.handling.signatures import folder, union, wrong


@dataclass(frozen=True)
class Needed:
    """An entity parameter or a reference: which entity, and the request's field with its id."""

    name: str
    entity: type[Entity]
    field: str
    optional: bool
    may_be_missing: bool = False
    """Whether None stands for one that is not there: it may be None, and the field may not."""
    own: bool = False
    """Whether the command is about this entity: locked, and written back once decided."""


def needed(
    function: Callable[..., Any],
    operation: type[Operation[Any]],
    name: str,
    hint: Any,
    decided: Any,
) -> Needed:
    """What a parameter needs, of a function that decides on such an entity if on any."""
    kinds = [kind for kind in union(hint) if kind is not type(None)]
    if len(kinds) != 1 or not (isinstance(kinds[0], type) and issubclass(kinds[0], Entity)):
        raise wrong(function, f"the parameter {name} is an entity or an entity | None")
    entity = kinds[0]
    fields = operation.model_fields
    own = name == entity.noun and folder(entity) == folder(operation)
    key = "id" if own and "id" in fields and f"{name}_id" not in fields else f"{name}_id"
    if key not in fields:
        raise wrong(function, f"{operation.__name__} has no field {key} to find {name} by")
    changed = key == "id" or (own and entity is decided)
    optional = type(None) in union(hint)
    missing = optional and fields[key].is_required()
    return Needed(name, entity, key, optional=optional, may_be_missing=missing, own=changed)


def referred(operation: type[Operation[Any]], entities: Iterable[Needed]) -> tuple[Needed, ...]:
    """What the fields of a command refer to, beside the entities that its function takes."""
    taken = {need.field for need in entities}
    fields = operation.model_fields
    return tuple(
        Needed(name, entity, name, optional=not fields[name].is_required())
        for name, entity in references(operation).items()
        if name not in taken
    )
