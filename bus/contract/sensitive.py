"""Secrets in requests and replies: ``Sensitive[Text]`` is shown to its receiver and nobody else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Final, TypeVar, get_args, get_origin

from pydantic import BaseModel, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

T = TypeVar("T")


class Mark:
    """The mark that distinguishes a secret from any other value of its type."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        document = {**handler(schema), "x-sensitive": True}
        choices = [document, *document.get("anyOf", [])]
        for text in [choice for choice in choices if choice.get("type") == "string"]:
            text["format"] = "password"
        return document


_MARK: Final = Mark()

Sensitive = Annotated[T, _MARK]
"""A secret, of any type: in no ``repr``, and its values in no message about what is wrong with it.
An operation whose request or reply holds one says ``secret=True``; no entity and no event does."""


@cache
def sensitive_fields(model: type[BaseModel]) -> frozenset[str]:
    """The names of a model's own fields that hold something sensitive."""
    return frozenset(
        name
        for name, field in model.model_fields.items()
        if _marks(field.metadata) or _marked(field.annotation)
    )


@cache
def all_sensitive_fields(model: type[BaseModel]) -> frozenset[str]:
    """The same of the model and of all that it holds."""
    found: set[str] = set()
    seen: set[type[BaseModel]] = set()
    looking = [model]
    while looking:
        one = looking.pop()
        if one not in seen:
            seen.add(one)
            found |= sensitive_fields(one)
            for field in one.model_fields.values():
                looking += _models(field.annotation)
    return frozenset(found)


def sensitive_texts(model: BaseModel) -> Iterator[str]:
    """Every text in the sensitive values of a message; the names of members are none."""
    hidden = sensitive_fields(type(model))
    for name in type(model).model_fields:
        yield from _texts(getattr(model, name, None), everything=name in hidden)


def _texts(value: Any, *, everything: bool) -> Iterator[str]:
    if isinstance(value, BaseModel):
        if not everything:
            yield from sensitive_texts(value)
            return
        value = value.__dict__
    if isinstance(value, str) and everything:
        yield value
    elif isinstance(value, Mapping):
        yield from _texts([*value.values()], everything=everything)
    elif isinstance(value, Iterable) and not isinstance(value, str | bytes):
        for one in value:
            yield from _texts(one, everything=everything)


def _marks(metadata: Iterable[Any]) -> bool:
    return any(isinstance(one, Mark) for one in metadata)


def _marked(annotation: Any) -> bool:
    if get_origin(annotation) is Annotated and _marks(annotation.__metadata__):
        return True
    return any(_marked(part) for part in get_args(annotation))


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)
