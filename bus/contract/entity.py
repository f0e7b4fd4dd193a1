"""Entities: what has an id, a version and times."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Self

from bus.contract.errors import VersionConflict
from bus.contract.fields import Id, Time, Version
from bus.contract.model import Reply
from bus.contract.refusals import DeclarationError, NotFound, snake_case
from bus.contract.sensitive import all_sensitive_fields


class Entity(Reply):
    """What has an id, a version and times; declare it with ``not_found=``, its refusal by id."""

    __slots__ = ("_encoded", "_origin")
    if TYPE_CHECKING:
        _encoded: bytes | None
        _origin: Self | None

    _field_names: ClassVar[set[str]]
    not_found: ClassVar[type[NotFound]]
    noun: ClassVar[str]

    id: Id
    version: Version
    """1 when it is created, +1 with each change."""
    created_at: Time
    """When it was created, by the clock of the database."""
    updated_at: Time
    """When it was last changed, by the clock of the database."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls._field_names = set(cls.model_fields)
        if secrets := all_sensitive_fields(cls):
            names = ", ".join(sorted(secrets))
            raise DeclarationError(f"{cls.__qualname__}: {names} is sensitive, and kept apart")

    def __init_subclass__(cls, *, not_found: type[NotFound] | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not_found is None:
            raise DeclarationError(f"{cls.__qualname__} needs not_found=, the refusal by its id")
        cls.not_found = not_found
        cls.noun = snake_case(cls.__name__)

    @classmethod
    def trusted(cls, values: dict[str, Any]) -> Self:
        """An entity of values that are known to be valid, which takes a tenth of validating them.

        For what comes from our own tables or from another entity, and nothing else.
        """
        made = cls.__new__(cls)
        set_value = object.__setattr__
        set_value(made, "__dict__", values)
        set_value(made, "__pydantic_fields_set__", cls._field_names)
        set_value(made, "__pydantic_extra__", None)
        set_value(made, "__pydantic_private__", None)
        set_value(made, "_encoded", None)
        set_value(made, "_origin", None)
        return made

    @classmethod
    def first(cls, *, id: Any, now: datetime, **values: Any) -> Self:  # noqa: A002  the field's own word
        """A new entity at its first version, with a value for each of its fields.

        As with ``evolve`` the values are not validated: they come from a request that was.
        """
        own = {"id": id, "version": 1, "created_at": now, "updated_at": now}
        named = values.keys()
        if unknown := named - (cls._field_names - own.keys()):
            raise TypeError(f"{cls.__name__}.first takes no {', '.join(sorted(unknown))}")
        if missing := cls._field_names - own.keys() - named:
            raise TypeError(f"{cls.__name__}.first needs {', '.join(sorted(missing))}")
        values |= own
        return cls.trusted({name: values[name] for name in cls.model_fields})

    def evolve(self, now: datetime, **changes: Any) -> Self:
        """The entity as it is after a change: one version on, changed now."""
        values = self.__dict__ | changes
        if len(values) != len(self.__dict__):
            unknown = changes.keys() - type(self).model_fields.keys()
            raise TypeError(f"{type(self).__name__} has no {', '.join(sorted(unknown))}")
        values["version"] = self.version + 1
        values["updated_at"] = now
        evolved = self.trusted(values)
        object.__setattr__(evolved, "_origin", self.origin or self)
        return evolved

    @property
    def origin(self) -> Self | None:
        """What this was before it was changed; None if it was not, or is new."""
        return getattr(self, "_origin", None)

    def encoded(self) -> bytes:
        """The entity as JSON; made once, for the table, the reply and the events."""
        known = getattr(self, "_encoded", None)
        if known is None:
            known = self.__pydantic_serializer__.to_json(self)
            object.__setattr__(self, "_encoded", known)
        return known

    def expect(self, version: int | None) -> None:
        """Refuse if the caller has seen another version than this one."""
        if version is not None and version != self.version:
            raise VersionConflict(
                entity=self.noun,
                id=self.id,
                expected_version=version,
                current_version=self.version,
            )
