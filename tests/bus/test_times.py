"""Every time that a request can name, at both ends of what times there are."""

from collections.abc import Iterator
from typing import Any

import pytest

from bus.contract.operation import OPERATIONS
from bus.contract.schemas import example_of, schema_of
from fleetbus import domain
from fleetbus.server.service import Service
from tests.bus.asking import asking

domain.registry()

ENDS = {
    "date-time": ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"),
    "date": ("0001-01-01", "9999-12-31"),
}
BEYOND = {
    "date-time": (
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "10000-01-01T00:00Z",
        "1764201600",
        "-1764201600",
        "1764201600.5",
        "",
    ),
    "date": ("0000-12-31", "10000-01-01"),
}

DEFINITION = {"id": "homepage", "description": "It answers"}


def places(schema: Any, defs: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[Any, str]]:
    """Where times stand in requests of this schema: the names that lead there, and their format."""
    if "$ref" in schema:
        yield from places(defs[schema["$ref"].rsplit("/", 1)[1]], defs, path)
    if schema.get("format") in ENDS:
        yield path, schema["format"]
    for kind in ("anyOf", "oneOf", "allOf"):
        for other in schema.get(kind, ()):
            yield from places(other, defs, path)
    if "items" in schema:
        yield from places(schema["items"], defs, (*path, "0"))
    for name, value in schema.get("properties", {}).items():
        yield from places(value, defs, (*path, name))


def times_of(schema: dict[str, Any]) -> Iterator[tuple[Any, str]]:
    return places(schema, schema.get("$defs", {}))


def with_value(example: dict[str, Any], path: tuple[str, ...], value: str) -> dict[str, Any]:
    """The example with a value at a place; beside it only what the example has there."""
    first, *rest = path
    if not rest:
        return {**example, first: value}
    inner = example.get(first)
    if rest[0] == "0":
        [item, *_] = inner or [{}]
        return {**example, first: [with_value(item, tuple(rest[1:]), value)]}
    kept = inner if isinstance(inner, dict) and rest[0] in inner else {}
    return {**example, first: with_value(kept, tuple(rest), value)}


TIMES = [
    (subject, path, kind)
    for subject, operation in sorted(OPERATIONS.items())
    if ".probe" not in subject
    for path, kind in dict.fromkeys(times_of(schema_of(operation)))
]


def test_there_are_some() -> None:
    assert {subject for subject, *_ in TIMES} >= {
        *("db.test_runs.record", "db.test_runs.record_many", "db.health.status"),
        *("db.projects.record_fetch", "db.accounts.mark_exhausted", "db.daily_summaries.upsert"),
    }


@pytest.mark.parametrize(("subject", "path", "kind"), TIMES, ids=str)
async def test_no_time_is_a_bug(
    service: Service, nats_url: str, subject: str, path: tuple[str, ...], kind: str
) -> None:
    assert service.connected
    example = example_of(OPERATIONS[subject])
    async with asking(nats_url) as ask:
        await ask("db.test_definitions.upsert", DEFINITION)
        for time in ENDS[kind]:
            answer = await ask(subject, with_value(example, path, time))
            assert answer.status in {200, 404, 409, 422}, answer
        for time in BEYOND[kind]:
            answer = await ask(subject, with_value(example, path, time))
            assert (answer.status, answer.type) == (400, "invalid_request"), answer
