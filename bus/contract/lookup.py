"""Look-ups: a query that answers one entity by its id."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from bus.contract.entity import Entity
from bus.contract.operation import Query
from bus.contract.refusals import DeclarationError, Refusal

E = TypeVar("E", bound=Entity)


class GetOf(Query[E], Generic[E]):
    """A query that returns the entity with this ``id``, or its own ``…NotFound``.

    Subclasses declare ``id`` as the entity does; the refusal goes without saying.
    """

    @classmethod
    def __pydantic_init_subclass__(
        cls, *, subject: str | None = None, errors: tuple[type[Refusal], ...] = (), **kwargs: Any
    ) -> None:
        if subject is None:
            super().__pydantic_init_subclass__(subject=subject, errors=errors, **kwargs)
            return
        entity = _entity(cls)
        errors = (entity.not_found, *errors)
        super().__pydantic_init_subclass__(subject=subject, errors=errors, **kwargs)
        own, found = entity.model_fields["id"], cls.model_fields.get("id")
        if found is None or not found.is_required() or found.annotation is not own.annotation:
            raise DeclarationError(
                f"{cls.__qualname__} needs the field id, required, as {entity.__qualname__} has it"
            )


def _entity(operation: type[GetOf[Any]]) -> type[Entity]:
    for base in operation.__mro__:
        generic = getattr(base, "__pydantic_generic_metadata__", {})
        if generic.get("origin") is GetOf:
            [entity] = generic["args"]
            if isinstance(entity, type) and issubclass(entity, Entity):
                return entity
    raise DeclarationError(f"{operation.__qualname__} needs its entity: GetOf[Task]")
