"""Whatever a field is given, the answer is a typed one, and soon."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from bus.contract.errors import EVERYWHERE, InvalidRequest
from bus.contract.schemas import schema_of
from bus.running.registry import Bound
from tests.bus.asking import Asker, Got
from tests.laws.calling.arranging import Arrangement
from tests.laws.calling.bodies import every, is_command

LONG = "x" * 1_000_000

VALUES: dict[str, list[Any]] = {
    "string": ["a\x00b", "\ud800", " ", LONG],
    "integer": [2**63, -(2**63) - 1, 10**400, -1],
    "number": [1e308, 10**400],
    "date-time": ["9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59"],
    "date": ["9999-12-31", "0001-01-01"],
    "array": [[None], {}],
    "object": [{"\x00": 1}, []],
}
"""Of each type of JSON Schema, or each format, what a field of it is given."""

ANSWERS = {error.type for error in EVERYWHERE if error.status < 500}


def values(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> Iterator[Any]:
    """What a field of this schema is given, beside null."""
    if "$ref" in schema:
        yield from values(defs[schema["$ref"].rsplit("/", 1)[1]], defs)
    for choice in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from values(choice, defs)
    yield from VALUES.get(schema.get("format", ""), ())
    yield from VALUES.get(schema.get("type", ""), ())


def given(bound: Bound) -> Iterator[tuple[str, Any]]:
    """Fields with what they are given: null for each, the rest for one of each type."""
    schema = schema_of(bound.operation)
    seen = []
    for name, field in schema.get("properties", {}).items():
        yield name, None
        kind = {key: value for key, value in field.items() if key not in {"description", "default"}}
        if kind not in seen:
            seen.append(kind)
            yield from ((name, value) for value in values(field, schema.get("$defs", {})))


def wrong(bound: Bound, got: Got) -> bool:
    declared = {error.type for error in bound.declared.errors}
    return got.status != 200 and got.type not in declared | ANSWERS


@pytest.mark.parametrize("bound", every())
async def test_any_value_has_a_typed_answer(
    bound: Bound, ask: Asker, arranged: Arrangement
) -> None:
    body, fields = await arranged.standing(bound), list(given(bound))

    answers = await asyncio.gather(
        *(ask(bound.subject, body | {n: v}, dry_run=is_command(bound)) for n, v in fields)
    )

    found = zip(fields, answers, strict=True)
    assert [(n, str(v)[:50], got.body) for (n, v), got in found if wrong(bound, got)] == []


@pytest.mark.parametrize("bound", every())
async def test_unknown_field_is_named(bound: Bound, ask: Asker, arranged: Arrangement) -> None:
    got = await ask(bound.subject, await arranged.standing(bound) | {"no_such_field": 1})

    assert (got.status, got.type) == (400, InvalidRequest.type)
    assert [error["field"] for error in got.body["errors"]] == ["no_such_field"]
