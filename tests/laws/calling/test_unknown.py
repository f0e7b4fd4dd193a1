"""What is not there is refused by its own name, and a reference to it by that of the field."""

from collections.abc import Mapping
from datetime import date
from typing import Any

import pytest

from bus.contract import Entity, InvalidReference
from bus.contract.errors import EVERYWHERE
from bus.kit.ids import uuid7
from bus.running.registry import Bound
from tests.bus.asking import Asker
from tests.laws.calling.arranging import Arrangement
from tests.laws.calling.bodies import (
    Body,
    every,
    is_uuid,
    own,
    own_field,
    parts,
    references,
    refusal_of_unknown,
)
from tests.laws.calling.rows import Rows


def holds_ids(bound: Bound, name: str, entity: type[Entity]) -> bool:
    """Whether a field is a reference, not any name that may also be an id."""
    kind = entity.model_fields["id"].annotation
    return kind in set(parts(bound.operation.model_fields[name].annotation))


REFERENCES = [
    pytest.param(bound, name, entity, id=f"{bound.subject}-{name}")
    for [bound] in (parameter.values for parameter in every())
    if own(bound) is None or own_field(bound)
    for name, entity in references(bound).items()
    if holds_ids(bound, name, entity)
]


def unknown(value: Any) -> Any:
    """Another value of the same form, that names nothing."""
    if isinstance(value, list):
        return [unknown(one) for one in value]
    if is_uuid(value):
        return str(uuid7())
    try:
        return str(date.fromisoformat(value).replace(year=1000))
    except ValueError:
        return f"{value}-0"


def naming(bound: Bound, body: Body) -> Mapping[str, Any]:
    """The fields by which what an operation is called about is found."""
    if (key := own_field(bound)) is not None:
        return {key: body[key]}
    entity = own(bound)
    fields = body if entity is None else entity.model_fields
    return {name: value for name, value in body.items() if name in fields and value is not None}


@pytest.mark.parametrize("bound", every(refusal_of_unknown))
async def test_unknown_is_not_found(
    bound: Bound, ask: Asker, arranged: Arrangement, rows: Rows
) -> None:
    refusal = refusal_of_unknown(bound)
    assert refusal is not None
    body = await arranged.standing(bound)
    names = {name: unknown(value) for name, value in naming(bound, body).items()}
    assert names
    before = await rows.contents()

    got = await ask(bound.subject, body | names)

    assert (got.status, got.type) == (404, refusal.type), got.body
    assert await rows.contents() == before
    for name, value in names.items():
        assert got.body.get(name, value) == value
        assert any(
            str(one) in got.body["detail"]
            for one in (value if isinstance(value, list) else [value])
        )


@pytest.mark.parametrize(("bound", "name", "entity"), REFERENCES)
async def test_unknown_reference_is_refused(
    bound: Bound, name: str, entity: type[Entity], ask: Asker, arranged: Arrangement, rows: Rows
) -> None:
    body = await arranged.body(bound)
    value = unknown(body[name]) if body.get(name) else str(uuid7())
    before = await rows.contents()

    got = await ask(bound.subject, body | {name: value})

    if InvalidReference in bound.declared.errors:
        assert (got.status, got.type) == (422, InvalidReference.type), got.body
        assert (got.body["field"], got.body["entity"]) == (name, entity.noun)
        assert await rows.contents() == before
    else:
        assert got.status == 200 or got.type in declared(bound), got.body


def declared(bound: Bound) -> set[str]:
    return {error.type for error in bound.declared.errors if error not in EVERYWHERE}


def deletes(bound: Bound) -> bool:
    return bound.declared.verb == "delete" and refusal_of_unknown(bound) is not None


@pytest.mark.parametrize("bound", every(deletes))
async def test_what_is_deleted_is_unknown(bound: Bound, ask: Asker, arranged: Arrangement) -> None:
    refusal = refusal_of_unknown(bound)
    assert refusal is not None
    body = await arranged.body(bound)
    assert (await ask(bound.subject, body)).status == 200

    again = await ask(bound.subject, body)
    got = await ask(f"db.{bound.declared.noun}.get", body)

    assert (again.status, again.type) == (404, refusal.type)
    assert (got.status, got.type) == (404, refusal.type)
