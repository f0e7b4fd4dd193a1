"""A dry run leaves nothing, a key gives the same again, another version is refused."""

import json
from typing import Any

import pytest

from bus.contract import VersionConflict
from bus.contract.errors import IdempotencyKeyReused
from bus.kit.ids import uuid7
from bus.running.registry import Bound
from tests.bus.asking import Asker
from tests.laws.calling.arranging import OUT_OF_REACH, Arrangement
from tests.laws.calling.bodies import every, is_command, is_rehearsed
from tests.laws.calling.rows import Rows

OTHER_VERSION = 4_711


def shape(value: Any) -> Any:
    """What a reply is made of, whatever its values are."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    return type(value)


@pytest.mark.parametrize("bound", every(is_command))
async def test_dry_run_leaves_nothing_and_says_what_would_be(
    bound: Bound, ask: Asker, arranged: Arrangement, rows: Rows
) -> None:
    body = await arranged.body(bound)
    before = await rows.contents()

    tried = await ask(bound.subject, body, dry_run=True, key=str(uuid7()))

    assert await rows.contents() == before
    assert tried.position is None
    if not is_rehearsed(bound):
        assert (tried.status, tried.type) == (400, "dry_run_refused")
        return
    done = await ask(bound.subject, body)
    assert (tried.status, shape(tried.body)) == (done.status, shape(done.body))


@pytest.mark.parametrize("bound", every(is_command))
async def test_the_same_key_gives_the_same_bytes(
    bound: Bound, ask: Asker, arranged: Arrangement, rows: Rows
) -> None:
    body, key = await arranged.body(bound), str(uuid7())

    first = await ask(bound.subject, body, key=key)
    after = await rows.contents()
    second = await ask(bound.subject, body, key=key)

    assert (second.status, second.data) == (first.status, first.data)
    assert await rows.contents() == after
    if bound.subject in OUT_OF_REACH:
        return  # a refusal is not kept: it says what is so now
    assert (first.status, first.replayed, second.replayed) == (200, False, True)
    assert second.position == first.position
    other = await ask(bound.subject, json.dumps(body, indent=1).encode(), key=key)
    assert (other.status, other.type) == (409, IdempotencyKeyReused.type)
    assert await rows.contents() == after


def versioned(bound: Bound) -> bool:
    return "expected_version" in bound.operation.model_fields


@pytest.mark.parametrize("bound", every(versioned))
async def test_another_version_is_a_conflict(
    bound: Bound, ask: Asker, arranged: Arrangement, rows: Rows
) -> None:
    body = await arranged.body(bound)
    before = await rows.contents()

    got = await ask(bound.subject, body | {"expected_version": OTHER_VERSION})

    assert (got.status, got.type) == (409, VersionConflict.type)
    assert got.body["expected_version"] == OTHER_VERSION
    assert await rows.contents() == before
    current = {"expected_version": got.body["current_version"]}
    assert (await ask(bound.subject, body | current)).status == 200
