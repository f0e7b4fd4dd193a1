"""Whatever a task makes can be stored, or something of it that says what is missing."""

import json
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, JsonValue, TypeAdapter

from bus.contract.fields import MAX_JSON_BYTES, Json, JsonObject, Summary
from fleetbus.client import storable

JSON: TypeAdapter[Any] = TypeAdapter(Json)
OBJECT: TypeAdapter[Any] = TypeAdapter(JsonObject)
SUMMARY: TypeAdapter[Any] = TypeAdapter(Summary)


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


@dataclass
class Point:
    x: float
    label: object


class Model(BaseModel):
    name: str = "m"


class Secretive:
    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__


class Loud(dict[str, object]):
    def items(self) -> Any:
        raise OSError


def nested(levels: int) -> dict[str, object]:
    inner: dict[str, object] = {}
    for _ in range(levels):
        inner = {"k": inner}
    return inner


def doubled(levels: int) -> list[object]:
    inner: list[object] = [1]
    for _ in range(levels):
        inner = [inner, inner]
    return inner


class TestText:
    @pytest.mark.parametrize(
        ("said", "stored"),
        [
            ("ok\0done", "ok\ufffddone"),
            ("half \ud800 pair", "half \ufffd pair"),
            (b"\xff ok\0", "\ufffd ok\ufffd"),
            (bytearray(b"ok"), "ok"),
            (ValueError("no\0"), "ValueError: no\ufffd"),
            (KeyError(), "KeyError"),
            (Secretive(), "<Secretive>"),
            (7, "7"),
            ("\U0001f91d", "\U0001f91d"),
        ],
    )
    def test_what_cannot_be_stored_is_replaced(self, said: object, stored: str) -> None:
        assert storable.text(said) == stored

    def test_what_is_too_long_is_cut_with_a_mark(self) -> None:
        said = storable.text("x" * 1_234_567, 20_000)
        assert len(said) <= 20_000
        assert said.endswith(" of 1,234,567 characters")
        kept = int(said.rpartition("cut: ")[2].split()[0].replace(",", ""))
        assert said.startswith("x" * kept + " … cut: ")

    def test_what_fits_exactly_is_whole(self) -> None:
        assert storable.text("x" * 100, 100) == "x" * 100

    def test_where_no_mark_fits_it_is_only_cut(self) -> None:
        assert storable.text("x" * 100, 10) == "x" * 10


class TestJsonValue:
    @pytest.mark.parametrize(
        ("made", "stored"),
        [
            (float("nan"), "NaN"),
            (float("-inf"), "-Infinity"),
            (10**400, hex(10**400)),
            (10**299, 10**299),
            ({1: "a", "1": "b", None: "c"}, {"1": "a", "1~2": "b", "None": "c"}),
            ({"k\0": "v\ud800"}, {"k\ufffd": "v\ufffd"}),
            ((1, [2], {3}), [1, [2], [3]]),
            (b"\xffok", "\ufffdok"),
            (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
            (date(2026, 1, 2), "2026-01-02"),
            (timedelta(seconds=1), "0:00:01"),
            (Decimal("1.5"), "1.5"),
            (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
            (PurePosixPath("a/b"), "a/b"),
            (Colour.RED, "red"),
            (Level.HIGH, 3),
            (True, True),
            (Point(1.5, {"a"}), {"x": 1.5, "label": ["a"]}),
            (Model(), {"name": "m"}),
            (OrderedDict(a=1), {"a": 1}),
            (Loud(a=1), "<Loud>"),
            (Secretive(), "<Secretive>"),
            (ValueError("x"), "ValueError: x"),
        ],
    )
    def test_what_json_has_no_form_for(self, made: object, stored: object) -> None:
        value = storable.json_value(made)
        assert (value, type(value)) == (stored, type(stored))

    def test_a_number_that_python_does_not_print(self) -> None:
        assert storable.json_value(-(10**5_000)) == hex(-(10**5_000))

    def test_a_cycle_ends_with_a_mark(self) -> None:
        made: list[object] = [1]
        made.append({"again": made})
        assert storable.json_value(made) == [1, {"again": "… a cycle: list"}]

    def test_the_same_object_twice_is_no_cycle(self) -> None:
        same = [1]
        assert storable.json_value([same, same]) == [[1], [1]]

    def test_what_is_nested_too_deeply_ends_with_a_mark(self) -> None:
        value = storable.json_value(nested(5_000))
        assert "… too deep: dict" in storable.as_json(value)
        assert storable.fits(value)

    def test_what_is_large_beyond_measure_is_left_out_with_a_mark(self) -> None:
        value = storable.json_value(doubled(60))
        assert "left out: " in json.dumps(value)
        assert not storable.fits(value)


class TestFits:
    def test_it_is_measured_with_its_escapes(self) -> None:
        assert not storable.fits("\x1b" * 170_000)
        assert storable.fits("x" * 170_000)

    def test_many_small_values_count_as_the_field_counts_them(self) -> None:
        made: list[JsonValue] = [0] * 60_000
        assert len(json.dumps(made)) < MAX_JSON_BYTES
        assert not storable.fits(made)


leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=20)
    | st.binary(max_size=20)
    | st.datetimes()
    | st.decimals(allow_nan=False)
    | st.sampled_from([Colour.RED, Level.HIGH, object, Model(), 10**500])
    | st.builds(Secretive)
    | st.builds(Loud)
)
objects = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(leaves.filter(lambda key: key.__hash__ is not None), inner, max_size=4)
        | st.builds(Point, st.floats(), inner)
        | inner.map(lambda value: [value] * 30)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(objects)
def test_any_object_can_be_stored_or_its_beginning_can(made: object) -> None:
    value = storable.json_value(made)
    kept = value if storable.fits(value) else storable.beginning(value, characters=4_000)
    JSON.validate_python(kept)
    OBJECT.validate_python(storable.json_object(kept))
    assert json.loads(storable.as_json(kept)) == kept


@settings(max_examples=100, deadline=None)
@given(leaves, st.integers(0, 120))
def test_any_text_can_be_stored(said: object, limit: int) -> None:
    stored = storable.text(said, limit)
    assert len(stored) <= limit
    SUMMARY.validate_python(stored)
    assert storable.text(stored, limit) == stored
