"""JSON Schemas (2020-12) and examples of what travels, read off the declarations."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema

from bus.contract.operation import Operation
from bus.contract.refusals import DeclarationError, Refusal

DIALECT = "https://json-schema.org/draft/2020-12/schema"

# Of a page's serialization pydantic knows only that it is an object; what it validates is what it
# writes, for every reply and event.
_MODE: JsonSchemaMode = "validation"

_PROBLEM = ("type", "title", "status", "detail", "retryable")

_TEXTS = {
    "uuid": "01990000-0000-7000-8000-000000000001",
    "date-time": "2026-01-31T12:00:00Z",
    "date": "2026-01-31",
    "uri": "https://example.org/",
}
_CANDIDATES = ("example", "example.org", "https://example.org/", "a", "1", "#0a0b0c", "0a1b2c3d")


class _Generator(GenerateJsonSchema):
    """Leaves out titles that only repeat a field's name."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002  pydantic's signature
        return False


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema of a message, complete in itself."""
    schema = model.model_json_schema(mode=_MODE, schema_generator=_Generator)
    return {"$schema": DIALECT, **schema}


def problem_schema_of(error: type[Refusal]) -> dict[str, Any]:
    """The JSON Schema of an error's body, complete in itself."""
    return _as_problem(schema_of(error.schema_model()))


def definitions(
    models: Iterable[type[BaseModel]], errors: Iterable[type[Refusal]], ref_template: str
) -> tuple[dict[type, str], dict[str, dict[str, Any]]]:
    """The schemas of many messages, each written once: a reference to each, and all by name."""
    wanted: dict[type, type[BaseModel]] = {model: model for model in models}
    wanted |= {error: error.schema_model() for error in errors}
    refs, document = models_json_schema(
        [(model, _MODE) for model in wanted.values()],
        ref_template=ref_template,
        schema_generator=_Generator,
    )
    schemas = document.get("$defs", {})
    names = {key: refs[model, _MODE]["$ref"] for key, model in wanted.items()}
    for key, ref in names.items():
        if issubclass(key, Refusal):
            _as_problem(schemas[ref.rsplit("/", 1)[1]])
    return names, schemas


def example_of(operation: type[Operation[Any]]) -> dict[str, Any]:
    """A request that is valid: the declared one, or one with what is required."""
    if operation.declared.example:
        return dict(operation.declared.example)
    schema = schema_of(operation)
    try:
        return _object(schema, schema.get("$defs", {}))
    except _NoExample as error:
        raise DeclarationError(
            f"{operation.__qualname__} needs example=: none can be made for {error}"
        ) from None


class _NoExample(Exception):
    """A value cannot be made up from its schema."""


def _as_problem(schema: dict[str, Any]) -> dict[str, Any]:
    """What is the same in each body of this error becomes a constant, and is always there."""
    properties = schema["properties"]
    for name in _PROBLEM:
        if "default" in properties[name]:
            properties[name] = {"const": properties[name]["default"]}
    required = schema.get("required", [])
    schema["required"] = [*_PROBLEM, *(name for name in required if name not in _PROBLEM)]
    return schema


def _object(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> dict[str, Any]:
    properties = schema.get("properties", {})
    return {name: _value(properties[name], defs) for name in schema.get("required", [])}


def _value(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> Any:
    if "$ref" in schema:
        return _value(defs[schema["$ref"].rsplit("/", 1)[1]], defs)
    given = [*schema.get("examples", []), *schema.get("enum", [])]
    if "const" in schema or given:
        return schema["const"] if "const" in schema else given[0]
    for choice in (*schema.get("anyOf", []), *schema.get("oneOf", [])):
        if choice.get("type") != "null":
            return _value(choice, defs)
    if schema.get("type") == "array":
        return [_value(schema.get("items", {}), defs)] * max(1, schema.get("minItems", 1))
    scalar = _SCALARS.get(schema.get("type", ""))
    return scalar(schema) if scalar else _object(schema, defs)


def _text(schema: Mapping[str, Any]) -> str:
    if schema.get("format") in _TEXTS:
        return _TEXTS[schema["format"]]
    shortest, longest = schema.get("minLength", 0), schema.get("maxLength", 1_000)
    for candidate in _CANDIDATES:
        text = candidate[:longest].ljust(shortest, "x")
        if re.search(schema.get("pattern", ""), text):
            return text
    raise _NoExample(f"a text of the form {schema['pattern']}")


def _number(schema: Mapping[str, Any]) -> int:
    least = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
    most = schema.get("maximum", schema.get("exclusiveMaximum", least + 2) - 1)
    return int(min(max(1, least), most))


_SCALARS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "string": _text,
    "integer": _number,
    "number": _number,
    "boolean": lambda _: True,
}
