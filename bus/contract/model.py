"""Models whose field strings are their documentation: requests, replies, and what they hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from bus.contract.docs import attribute_docs
from bus.contract.sensitive import sensitive_fields


def built(*models: type[BaseModel]) -> None:
    """Make now what validates and encodes these models, rather than when it is first used.

    Contracts leave it to then: a program that calls one operation need not make all of them.
    """
    for model in models:
        model.model_rebuild()


class Documented(BaseModel):
    """A model whose JSON Schema has the strings under its fields as their descriptions.

    The field ``phase_id`` has one without: it is the id of a phase.
    """

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        document = handler(schema)
        properties = handler.resolve_ref_schema(document).get("properties", {})
        for name, doc in attribute_docs(cls).items():
            if name in properties:
                properties[name].setdefault("description", doc)
        for name in properties:
            if name.endswith("_id"):
                properties[name].setdefault("description", _reference(name))
        return document

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        hidden = sensitive_fields(type(self))
        return [shown for shown in super().__repr_args__() if shown[0] not in hidden]


def _reference(name: str) -> str:
    """What a field is whose name says that it is an id."""
    noun = name.removesuffix("_id").replace("_", " ")
    if noun != (awaited := noun.removeprefix("depends on ")):
        return f"The id of the {awaited} that it depends on."
    return f"The id of {'an' if noun[0] in 'aeiou' else 'a'} {noun}."


class Request(Documented):
    """Part of a request: frozen, unknown fields refused, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        document = super().__get_pydantic_json_schema__(schema, handler)
        properties = handler.resolve_ref_schema(document).get("properties", {})
        for name in sensitive_fields(cls) & properties.keys():
            properties[name]["writeOnly"] = True
        return document


class Reply(Documented):
    """An answer, always a JSON object. Fields that a newer service adds are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, defer_build=True)

    when_too_large: ClassVar[str] = "ask for a smaller page with limit"
    """What the caller of a reply that does not fit into one message is advised to do."""
