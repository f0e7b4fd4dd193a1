"""The declarations: commands, queries, events and entities, each said in its class statement.

A wrong declaration fails at import, with a message that says what to fix.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, to_json

from contracts._declared import Declared, Fact
from contracts._docs import attribute_docs, summary
from contracts._errors import DeclarationError, NotFound, Refusal, snake_case
from contracts._fields import Id, Time, Version
from contracts._items import joined
from contracts.errors import EVERYWHERE, VersionConflict

R = TypeVar("R", bound="Reply")
T = TypeVar("T")

SUBJECT = re.compile(r"^db\.([a-z][a-z0-9_]*)\.([a-z][a-z0-9_]*)$")
EVENT_TYPE = re.compile(r"^([a-z][a-z0-9_]*)\.([a-z][a-z0-9_]*)$")


OPERATIONS: dict[str, type[Operation[Any]]] = {}
"""Every declared operation by its subject."""

EVENTS: dict[str, type[Event]] = {}
"""Every declared event by its type."""


class Documented(BaseModel):
    """A model whose JSON Schema has the strings under its fields as their descriptions."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        document = handler(schema)
        properties = handler.resolve_ref_schema(document).get("properties", {})
        for name, doc in attribute_docs(cls).items():
            if name in properties:
                properties[name].setdefault("description", doc)
        return document


class Request(Documented):
    """Part of a request: frozen, unknown fields refused, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Reply(Documented):
    """An answer, always a JSON object. Fields that a newer service adds are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


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
    updated_at: Time

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls._field_names = set(cls.model_fields)

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


class Operation(Request, Generic[R]):
    """One subject. Use ``Command[Reply]`` or ``Query[Reply]``, not this."""

    declared: ClassVar[Declared]
    kind_: ClassVar[Literal["command", "query"]]

    def __init_subclass__(
        cls,
        *,
        subject: str | None = None,
        errors: tuple[type[Refusal], ...] = (),
        emits: tuple[type[Event], ...] = (),
        example: Mapping[str, Any] | None = None,
        vital: bool = False,
        expensive: bool = False,
    ) -> None:
        """What a class statement may say; it is read once the fields are known, below."""
        super().__init_subclass__()

    @property
    def expensive(self) -> bool:
        """Whether answering this request reads more the more there is."""
        return self.declared.expensive

    @classmethod
    def __pydantic_init_subclass__(
        cls,
        *,
        subject: str | None = None,
        errors: tuple[type[Refusal], ...] = (),
        emits: tuple[type[Event], ...] = (),
        example: Mapping[str, Any] | None = None,
        vital: bool = False,
        expensive: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        generic = cls.__pydantic_generic_metadata__
        if generic["origin"] or (generic["parameters"] and subject is None):
            return  # Command[Reply] itself, or a generic base such as ListOf
        if subject is None:
            raise DeclarationError(f'{cls.__qualname__} needs subject="db.<noun>.<verb>"')
        noun, verb = _matched(cls, subject)
        cls.declared = Declared(
            subject=subject,
            kind=cls.kind_,
            context=_context(cls, noun),
            noun=noun,
            verb=verb,
            reply=_reply(cls),
            errors=_classes(cls, "errors", errors, Refusal),
            emits=_classes(cls, "emits", emits, Event),
            summary=summary(cls),
            example=example or {},
            vital=vital,
            expensive=expensive,
        )
        _check_operation(cls)


class Command(Operation[R], Generic[R]):
    """An operation that changes something: one transaction, repeatable by idempotency key."""

    kind_ = "command"


class Query(Operation[R], Generic[R]):
    """An operation that reads."""

    kind_ = "query"


class Page(Reply, Generic[T]):
    """One page of a list; ``next_cursor`` is null on the last one."""

    items: list[T]
    next_cursor: str | None = None
    total: int | None = None
    """How many items there are on all pages; only if ``count: "exact"`` was asked for."""

    @model_serializer(mode="wrap")
    def _total_only_if_counted(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        body: dict[str, Any] = handler(self)
        if self.total is None:
            body.pop("total", None)
        return body

    def encoded(self) -> bytes:
        """A page of entities as JSON, made of theirs."""
        rest: dict[str, Any] = {"next_cursor": self.next_cursor}
        if self.total is not None:
            rest["total"] = self.total
        return b'{"items":[' + joined(self.items) + b"]," + to_json(rest)[1:]


Cursor = Annotated[str, StringConstraints(min_length=1, max_length=2_000)]
"""The ``next_cursor`` of the previous page; opaque."""


class ListOf(Query[Page[T]], Generic[T]):
    """A query that returns one page; subclasses add filters and redeclare ``order``."""

    limit: Annotated[int, Field(ge=1, le=500)] = 50
    """Items per page, 1–500."""
    cursor: Cursor | None = None
    if TYPE_CHECKING:
        order: str = "created_at"  # subclasses narrow it to the orders that they offer
    else:
        order: Literal["created_at", "-created_at"] = "created_at"
        """The column to order by; ``-`` reverses the order. Ties are broken by id."""
    count: Literal["none", "exact"] = "none"
    """``exact`` adds ``total``, at the cost of counting."""

    @property
    def expensive(self) -> bool:
        """A page by an index costs the same however much there is; a search or a count does not."""
        searched = getattr(self, "search", None) is not None
        return super().expensive or searched or self.count == "exact"


class Event(Documented):
    """A fact about one entity; the field named like the entity holds it as it is afterwards."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

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
        cls.fact = Fact(type=type, entity=entity, context=_folder(cls), summary=summary(cls))
        if entity not in cls.model_fields:
            raise DeclarationError(
                f"{cls.__qualname__} is an event of a {entity} and has no field {entity}"
            )
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


def _check_operation(cls: type[Operation[Any]]) -> None:
    declared = cls.declared
    if declared.emits and declared.kind == "query":
        raise DeclarationError(f"{cls.__qualname__} is a query and cannot emit events")
    if declared.vital and declared.kind == "query":
        raise DeclarationError(f"{cls.__qualname__} is a query and cannot be vital")
    if declared.expensive and declared.kind == "command":
        raise DeclarationError(f"{cls.__qualname__} is a command and cannot be expensive")
    if implied := set(declared.errors) & set(EVERYWHERE):
        names = ", ".join(error.__name__ for error in implied)
        raise DeclarationError(
            f"{cls.__qualname__}: any operation may answer {names}; leave it out"
        )
    other = OPERATIONS.setdefault(declared.subject, cls)
    if other is not cls:
        raise DeclarationError(
            f"{cls.__qualname__}: subject {declared.subject} is taken by {other.__qualname__}; "
            "one subject is one operation"
        )


def _matched(cls: type[BaseModel], subject: str) -> tuple[str, str]:
    if not (match := SUBJECT.match(subject)):
        raise DeclarationError(
            f"{cls.__qualname__}: {subject!r} is not db.<noun>.<verb> in snake_case"
        )
    return match[1], match[2]


def _folder(cls: type[BaseModel]) -> str:
    parts = cls.__module__.split(".")
    if len(parts) != 3 or parts[0] != "contracts":
        raise DeclarationError(
            f"{cls.__qualname__} is declared in {cls.__module__}; "
            "its place is contracts/<context>/<noun>.py"
        )
    return parts[1]


def _context(cls: type[BaseModel], noun: str) -> str:
    context = _folder(cls)
    if noun != (module := cls.__module__.split(".")[2]):
        raise DeclarationError(
            f"{cls.__qualname__}: operations on {noun} are declared in "
            f"contracts/{context}/{noun}.py, not in {module}.py"
        )
    return context


def _reply(cls: type[Operation[Any]]) -> type[Reply]:
    for base in cls.__mro__:
        generic: Mapping[str, Any] = getattr(base, "__pydantic_generic_metadata__", {})
        origin, args = generic.get("origin"), generic.get("args", ())
        if origin is ListOf:
            return Page[args[0]]  # type: ignore[valid-type]  # known only now
        if origin in {Command, Query} and isinstance(args[0], type) and issubclass(args[0], Reply):
            reply: type[Reply] = args[0]
            return reply
    raise DeclarationError(
        f"{cls.__qualname__} needs its reply, a subclass of Reply: Command[Task], Query[Page[Task]]"
    )


def _classes(cls: type, what: str, given: tuple[Any, ...], base: type) -> tuple[Any, ...]:
    if not isinstance(given, tuple):
        raise DeclarationError(f"{cls.__qualname__}: {what} is a tuple of classes")
    for item in given:
        if not (isinstance(item, type) and issubclass(item, base)):
            raise DeclarationError(
                f"{cls.__qualname__}: {what} names {item!r}, not a subclass of {base.__name__}"
            )
    return given
