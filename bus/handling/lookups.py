"""What a query by id is handed: the entity, what lies beside it, and what these name in turn."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import UUID

from bus.contract.entity import Entity
from bus.contract.operation import Operation
from bus.contract.tokens import token_fields
from bus.handling.needs import Needed
from bus.handling.signatures import union, wrong
from bus.kit.tokens import Token
from bus.storage.companions import CompanionRow
from bus.storage.lookups import Part


@dataclass(frozen=True)
class Sought:
    """One parameter of a query by id, and where what it takes is found."""

    name: str
    part: Part
    optional: bool


@dataclass(frozen=True)
class LookedUp:
    """What a query by id is handed, in the order of its parameters; the first is what it names."""

    field: str
    """The query's field that holds the id, or a token with it."""
    sought: tuple[Sought, ...]

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """What is read."""
        return tuple(one.part for one in self.sought)

    @property
    def entities(self) -> tuple[Needed, ...]:
        """The entities among it."""
        return tuple(
            Needed(one.name, one.part.kind, self.field, optional=one.optional)
            for one in self.sought
            if issubclass(one.part.kind, Entity)
        )

    def id_of(self, query: Any) -> Any:
        """What a query names."""
        value = getattr(query, self.field)
        return value.id if isinstance(value, Token) else value

    def without(self, id_: Any) -> tuple[None, ...]:
        """What is handed where there is nothing with this id, unless that refuses the query."""
        first = self.sought[0]
        if not first.optional and issubclass(first.part.kind, Entity):
            raise first.part.kind.not_found(id=id_)
        return (None,) * len(self.sought)


def looked_up(
    function: Callable[..., Any],
    operation: type[Operation[Any]],
    hints: Mapping[str, Any],
    parameters: Sequence[inspect.Parameter],
) -> LookedUp:
    """What a query by id takes, as the signature of its function says."""
    sought: list[Sought] = []
    for parameter in parameters:
        name, hint = parameter.name, union(hints[parameter.name])
        kinds = [kind for kind in hint if kind is not type(None)]
        optional = len(kinds) < len(hint)
        if len(kinds) != 1 or not (
            isinstance(kinds[0], type) and issubclass(kinds[0], (Entity, CompanionRow))
        ):
            raise wrong(function, f"the parameter {name} is an entity, or a row beside one")
        one = Sought(name, _part(function, name, kinds[0], sought), optional)
        _check_optional(function, one, sought)
        sought.append(one)
    if not sought or issubclass(sought[0].part.kind, CompanionRow):
        raise wrong(function, "a plain query takes the entity that its id or token names, first")
    return LookedUp(_field(function, operation, sought[0]), tuple(sought))


def _field(function: Callable[..., Any], operation: type[Operation[Any]], first: Sought) -> str:
    if "id" in operation.model_fields:
        return "id"
    tokens = token_fields(operation)
    if len(tokens) != 1:
        raise wrong(
            function,
            f"{operation.__name__} has no field id, nor one token, to find {first.name} by",
        )
    assert issubclass(first.part.kind, Entity)
    if first.part.kind.model_fields["id"].annotation is not UUID:
        raise wrong(function, f"a token names no {first.name}: its id is no UUID")
    return tokens[0]


def _part(function: Callable[..., Any], name: str, kind: Any, before: list[Sought]) -> Part:
    if issubclass(kind, CompanionRow):
        for number, one in enumerate(before):
            if one.part.kind is kind.owned_by:
                return Part(kind, number)
        if before:
            noun = kind.owned_by.noun
            raise wrong(function, f"{name} lies beside its {noun}, which is taken before it")
        return Part(kind)
    for number, one in enumerate(before):
        if issubclass(one.part.kind, Entity) and f"{name}_id" in one.part.kind.model_fields:
            return Part(kind, number, f"{name}_id")
    if before:
        raise wrong(function, f"nothing before {name} has a field {name}_id to find it by")
    return Part(kind)


def _check_optional(function: Callable[..., Any], one: Sought, before: list[Sought]) -> None:
    """Refuse a parameter that could be None, and does not say so."""
    if not before or one.optional:
        return
    kind, of, by = one.part
    named = before[of]
    assert issubclass(named.part.kind, Entity)
    missing = issubclass(kind, CompanionRow) or named.optional
    if missing or type(None) in union(named.part.kind.model_fields[by].annotation):
        raise wrong(function, f"there may be no {one.name}: it is annotated {kind.__name__} | None")
