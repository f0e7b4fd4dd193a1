"""Events: facts about one entity, emitted with the change that made them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import ConfigDict
from pydantic_core import to_json

from bus.contract.docs import summary
from bus.contract.entity import Entity
from bus.contract.model import Documented
from bus.contract.place import context_of
from bus.contract.refusals import DeclarationError
from bus.contract.sensitive import all_sensitive_fields

EVENT_TYPE = re.compile(r"^([a-z][a-z0-9_]*)\.([a-z][a-z0-9_]*)$")

EVENTS: dict[str, type[Event]] = {}
"""Every declared event by its type."""


@dataclass(frozen=True)
class Fact:
    """What the class statement of an event says."""

    type: str
    entity: str
    context: str
    summary: str


class Event(Documented):
    """A fact about one entity; the field named like the entity holds it as it is afterwards."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, defer_build=True)

    fact: ClassVar[Fact]

    def __init_subclass__(cls, *, type: str | None = None) -> None:  # noqa: A002  the field's own word
        """What a class statement may say; it is read once the fields are known, below."""
        super().__init_subclass__()

    @classmethod
    def __pydantic_init_subclass__(cls, *, type: str | None = None, **kwargs: Any) -> None:  # noqa: A002  the field's own word
        super().__pydantic_init_subclass__(**kwargs)
        if type is None or not (match := EVENT_TYPE.match(type)):
            raise DeclarationError(f'{cls.__qualname__} needs type="<entity>.<fact>", not {type!r}')
        entity = match[1]
        cls.fact = Fact(type=type, entity=entity, context=context_of(cls), summary=summary(cls))
        if entity not in cls.model_fields:
            raise DeclarationError(
                f"{cls.__qualname__} is an event of a {entity} and has no field {entity}"
            )
        if secrets := all_sensitive_fields(cls):
            names = ", ".join(sorted(secrets))
            raise DeclarationError(f"{cls.__qualname__}: {names} is sensitive, and events are not")
        other = EVENTS.setdefault(type, cls)
        if other is not cls:
            raise DeclarationError(
                f"{cls.__qualname__}: type {type} is taken by {other.__qualname__}"
            )

    def encoded(self) -> bytes:
        """The event as JSON, with the entity first."""
        name = self.fact.entity
        rest = self.__dict__.copy()
        entity = rest.pop(name)
        if not isinstance(entity, Entity):
            return self.__pydantic_serializer__.to_json(self)
        tail = b"," + to_json(rest)[1:] if rest else b"}"
        return b'{"' + name.encode() + b'":' + entity.encoded() + tail

    @property
    def entity_id(self) -> str:
        """The id of the entity that this is about, the last token of the subject."""
        return str(getattr(self, self.fact.entity).id)
