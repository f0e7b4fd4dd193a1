"""JSON Schemas as a person reads them: a field on a line, its type in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

Schema = Mapping[str, Any]

_BOUNDS = {
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minimum": "at least {}",
    "maximum": "at most {}",
    "exclusiveMinimum": "more than {}",
    "exclusiveMaximum": "less than {}",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
}
_LARGEST_SHOWN = 2**31 - 1


class Field(NamedTuple):
    """A field of an object."""

    name: str
    type: str
    required: bool
    default: str
    """As JSON; empty where there is none."""
    description: str


def fields(schema: Schema) -> list[Field]:
    """The fields of an object's schema, required ones first."""
    defs = schema.get("$defs", {})
    required = set(schema.get("required", []))
    found = [
        _field(name, field, name in required, defs)
        for name, field in schema.get("properties", {}).items()
    ]
    return sorted(found, key=lambda field: not field.required)


def _field(name: str, schema: Schema, required: bool, defs: Schema) -> Field:
    default = schema.get("default")
    return Field(
        name,
        type_of(schema, defs),
        required,
        json.dumps(default) if default is not None else "",
        " ".join(_description(schema).split()),
    )


def _description(schema: Schema) -> str:
    """What is said of a field, or else of what it may be beside null."""
    said = (part["description"] for part in schema.get("anyOf", ()) if "description" in part)
    return str(schema.get("description") or next(said, ""))


def type_of(schema: Schema, defs: Schema) -> str:
    """A type in words: ``uuid or null``, ``list of Task``, ``low | medium | high``."""
    if "$ref" in schema:
        name = str(schema["$ref"]).rsplit("/", 1)[-1]
        target = defs.get(name, {})
        return name if target.get("type") == "object" else type_of(target, defs)
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            words = dict.fromkeys(type_of(choice, defs) for choice in schema[keyword])
            return " or ".join(sorted(words, key="null".__eq__))
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"])
    if "const" in schema:
        return json.dumps(schema["const"])
    return ", ".join((_plain(schema, defs), *_bounds(schema)))


def _plain(schema: Schema, defs: Schema) -> str:
    match schema.get("type"):
        case "array":
            return f"list of {type_of(schema.get('items', {}), defs)}"
        case "string":
            return str(schema.get("format", "text"))
        case "object":
            return str(schema.get("title", "object"))
        case None:
            return "any JSON"
        case list() as several:
            return " or ".join(several)
        case other:
            return str(other)


def _bounds(schema: Schema) -> Iterator[str]:
    for keyword, words in _BOUNDS.items():
        limit = schema.get(keyword)
        if limit is None or abs(limit) >= _LARGEST_SHOWN:
            continue
        if not (keyword in {"minLength", "minItems"} and limit <= 1):
            yield words.format(f"{limit:,}")
