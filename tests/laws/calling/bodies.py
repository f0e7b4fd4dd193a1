"""What an operation is about, and what its fields name, as its declaration says it."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, get_args
from uuid import UUID

import pytest
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json
from sqlalchemy import Text, UniqueConstraint

from bus.contract import Entity, NotFound
from bus.contract.errors import DryRunRefused
from bus.contract.schemas import example_of
from bus.handling.shape import TOGETHER
from bus.running.registry import Bound, Registry
from bus.storage import TABLES
from fleetbus import domain

Body = dict[str, Any]


def every(where: Callable[[Bound], Any] = bool) -> list[Any]:
    """Operations as parameters of a law: all, or those of which this is true."""
    bound = domain.registry().operations.values()
    return [pytest.param(one, id=one.subject) for one in bound if where(one)]


def is_command(bound: Bound) -> bool:
    return bound.declared.kind == "command"


def is_rehearsed(bound: Bound) -> bool:
    """Whether it may be tried by a dry run."""
    return is_command(bound) and DryRunRefused not in bound.declared.errors


def refusal_of_unknown(bound: Bound) -> type[NotFound] | None:
    """What an operation answers where nothing has the id or the name that it is called with."""
    errors = [error for error in bound.declared.errors if issubclass(error, NotFound)]
    entities = {entity.not_found for entity in TABLES}
    return next((error for error in errors if error in entities), errors[0] if errors else None)


def own(bound: Bound) -> type[Entity] | None:
    """The entity that an operation is called about, which must be there."""
    refusal = refusal_of_unknown(bound)
    return next((entity for entity in TABLES if entity.not_found is refusal), None)


def own_field(bound: Bound) -> str | None:
    """The field with the id of what an operation is called about; None if others name it."""
    entity = own(bound)
    if entity is None:
        return None
    names = ("id", "ids", f"{entity.noun}_id")
    return next((name for name in names if name in bound.operation.model_fields), None)


@cache
def named(field: str) -> type[Entity] | None:
    """The entity whose id a field holds, by its name: ``depends_on_task_id`` a task's."""
    noun = field.removesuffix("s").removesuffix("_id")
    if noun == field.removesuffix("s"):
        return None
    fitting = [e for e in TABLES if f"_{noun}".endswith(f"_{e.noun}")]
    return max(fitting, key=lambda entity: len(entity.noun), default=None)


def references(bound: Bound) -> dict[str, type[Entity]]:
    """The fields of a request that hold ids of further entities, each with which."""
    fields = bound.operation.model_fields.keys() - {own_field(bound)}
    return {name: entity for name in sorted(fields) if (entity := named(name))}


def parts(annotation: Any) -> Iterator[Any]:
    """A type and all that it is made of."""
    yield annotation
    for argument in get_args(annotation):
        yield from parts(argument)


def choices(annotation: Any) -> Iterator[Any]:
    """The values that a ``Literal`` counts, also within an optional one."""
    for argument in get_args(annotation):
        if isinstance(argument, str | int):
            yield argument
        else:
            yield from choices(argument)


@cache
def unique_texts() -> frozenset[str]:
    """The fields whose texts are unique in some table."""
    found = set()
    for table in TABLES.values():
        uniques = [c.columns for c in table.constraints if isinstance(c, UniqueConstraint)]
        uniques += [index.columns for index in table.indexes if index.unique]
        for columns in uniques:
            found |= {column.name for column in columns if isinstance(column.type, Text)}
    return frozenset(found)


def smallest(bound: Bound) -> Body:
    """The required fields of the example, or all of it if they alone are not valid."""
    example = example_of(bound.operation)
    fields = bound.operation.model_fields
    body = {name: value for name, value in example.items() if fields[name].is_required()}
    try:
        bound.operation.model_validate_json(to_json(body))
    except ValidationError:
        return example
    return body


def makes(bound: Bound) -> bool:
    """Whether an operation makes something new each time, so that names must be new too."""
    return own(bound) is None and (
        "new_id" in bound.handling.dependencies or bound.handling.shape is TOGETHER
    )


def makers(registry: Registry, entity: type[Entity]) -> list[Bound]:
    """The commands that make such an entity; those that can be told its id, if there are any."""
    found = [
        bound
        for bound in registry.operations.values()
        if bound.declared.kind == "command" and own(bound) is None and _answers(bound, entity)
    ]
    return [b for b in found if "id" in b.operation.model_fields] or found


def _answers(bound: Bound, entity: type[Entity]) -> bool:
    reply: type[BaseModel] = bound.declared.reply
    return reply is entity or any(f.annotation is entity for f in reply.model_fields.values())


def variants(bound: Bound, entity: type[Entity]) -> Iterator[Mapping[str, Any]]:
    """Fields with which an entity is made, besides those it needs: none, a reference, a status.

    A reference is given as the entity that it names.
    """
    yield {}
    fields = bound.operation.model_fields
    for name, target in references(bound).items():
        if not fields[name].is_required() and target is not entity:
            yield {name: target}
    if "status" in fields:
        for status in choices(fields["status"].annotation):
            if status != fields["status"].default:
                yield {"status": status}


def is_uuid(text: Any) -> bool:
    try:
        return isinstance(text, str) and bool(UUID(text))
    except ValueError:
        return False
