"""References: the id of another entity, which must exist."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args
from uuid import UUID

from pydantic import BaseModel, GetJsonSchemaHandler

from bus.contract.entity import Entity
from bus.contract.fields import Id
from bus.contract.refusals import DeclarationError

E = TypeVar("E", bound=Entity)


@dataclass(frozen=True)
class Refers:
    """Marks a field that holds the id of such an entity."""

    entity: type[Entity]

    def __get_pydantic_json_schema__(
        self, core: Any, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        noun = self.entity.noun.replace("_", " ")
        article = "an" if noun[0] in "aeiou" else "a"
        return {**handler(core), "description": f"The id of {article} {noun}, which must exist."}


if TYPE_CHECKING:
    from typing_extensions import TypeAliasType

    Ref = TypeAliasType("Ref", UUID, type_params=(E,))
else:

    class Ref:
        """``Ref[TestRun]``: the id of a test run; a command that names none is refused.

        For what a decider needs to exist and does not look at: a field of a command on one entity.
        """

        def __class_getitem__(cls, entity: type[Entity]) -> Any:
            if entity.model_fields["id"].annotation is not UUID:
                raise DeclarationError(f"Ref[{entity.__qualname__}]: its id is not a UUID")
            return Annotated[Id, Refers(entity)]


def references(model: type[BaseModel]) -> Mapping[str, type[Entity]]:
    """The fields of a model that refer to an entity, each with which."""
    return {
        name: mark.entity
        for name, field in model.model_fields.items()
        for mark in (*field.metadata, *_within(field.annotation))
        if isinstance(mark, Refers)
    }


def _within(annotation: Any) -> Iterator[Any]:
    for part in get_args(annotation):
        yield from getattr(part, "__metadata__", ())
