"""Any text or Python object made storable: replaced or cut with a mark, never an error.

PostgreSQL keeps neither U+0000 nor half a surrogate pair in a text, and nothing may be larger than
its field. Values that are not made by this program, but by the work that it looks after, go through
here on their way to the service.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time
from enum import Enum
from typing import Any

import pydantic_core
from pydantic import BaseModel, JsonValue, TypeAdapter, ValidationError

from bus.contract.fields import MAX_JSON_BYTES, MAX_JSON_DEPTH, MAX_JSON_DIGITS, Json

REPLACEMENT = "\ufffd"
"""Stands where a character could not be stored."""

MAX_KEY = 1_000
"""Characters of a key of an object."""

MAX_VALUES = 100_000
"""Values that are read of one object; the rest of it is left out with a mark."""

MAX_CHARACTERS = 4 * 1024 * 1024
"""Characters that are read of all texts of one object together."""

DEEPEST = MAX_JSON_DEPTH - 4
"""Levels that are read of an object, so that what encloses it fits too."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_JSON: TypeAdapter[Any] = TypeAdapter(Json)


def replaced(text: str) -> tuple[str, int]:
    """The text with U+FFFD for what cannot be stored, and how many characters that were."""
    return _UNSTORABLE.subn(REPLACEMENT, text)


def cut(text: str, limit: int, *, rest: str = "") -> str:
    """The text if it has at most ``limit`` characters, else its beginning and a mark that says so.

    ``rest`` becomes part of the mark: it says where the whole text is.
    """
    if len(text) <= limit:
        return text
    longest = f" … cut: {limit:,} of {len(text):,} characters{rest}"
    kept = limit - len(longest)
    if kept <= 0:
        return text[:limit]
    return f"{text[:kept]} … cut: {kept:,} of {len(text):,} characters{rest}"


def text(value: object, limit: int | None = None, *, rest: str = "") -> str:
    """Any value as a text that can be stored, cut at ``limit``."""
    if isinstance(value, str):
        said = str.__str__(value)
    elif isinstance(value, bytes | bytearray | memoryview):
        said = bytes(value).decode(errors="replace")
    else:
        said = _described(value)
    storable, _ = replaced(said)
    return storable if limit is None else cut(storable, limit, rest=rest)


def json_value(value: object) -> JsonValue:
    """Any object as JSON that can be stored, except that it may still be too large for its field.

    Values that JSON has no form for become text: NaN and infinities, bytes, dates, numbers with
    more digits than fit, objects. Cycles, and values that are nested too deeply, end with a mark.
    """
    return _Reading().value(value, 1, frozenset())


def json_object(value: object) -> dict[str, JsonValue]:
    """The same as an object; a value that is not one is put under ``value``."""
    read = json_value(value)
    return read if isinstance(read, dict) else {"value": read}


def fits(value: JsonValue) -> bool:
    """Whether this can be stored in a field of JSON, and sent with all its escapes."""
    if len(pydantic_core.to_json(value)) > MAX_JSON_BYTES:
        return False
    try:
        _JSON.validate_python(value)
    except ValidationError:
        return False
    return True


def beginning(value: JsonValue, *, characters: int, rest: str = "") -> dict[str, JsonValue]:
    """What is stored in place of a value that does not fit: a mark, and how it begins."""
    whole = as_json(value)
    mark = f"cut: {min(characters, len(whole)):,} of {len(whole):,} characters{rest}"
    return {"fleetbus": mark, "beginning": whole[:characters]}


def as_json(value: JsonValue) -> str:
    """The value in JSON, on one line."""
    return pydantic_core.to_json(value).decode()


class _Reading:
    """One object being read, and how much of it may still be."""

    def __init__(self) -> None:
        self._values = MAX_VALUES
        self._characters = MAX_CHARACTERS

    def value(self, item: object, depth: int, above: frozenset[int]) -> JsonValue:
        self._values -= 1
        try:
            return self._known(item, depth, above)
        except Exception:  # noqa: BLE001  an object of others may raise whatever it likes
            return self._text(f"<{type(item).__name__}>")

    def _known(self, item: object, depth: int, above: frozenset[int]) -> JsonValue:
        if item is None or isinstance(item, bool):
            return item
        if isinstance(item, Enum):
            return self.value(item.value, depth, above)
        if isinstance(item, int):
            whole = int(item)
            return whole if abs(whole) < 10**MAX_JSON_DIGITS else self._text(hex(whole))
        if isinstance(item, float):
            return float(item) if math.isfinite(item) else _not_finite(item)
        if isinstance(item, datetime | date | time):
            return self._text(item.isoformat())
        inside = _inside(item)
        return self._text(item) if inside is None else self._nested(item, inside, depth, above)

    def _nested(
        self, item: object, inside: Mapping[Any, Any] | list[Any], depth: int, above: frozenset[int]
    ) -> JsonValue:
        if id(item) in above:
            return f"… a cycle: {type(item).__name__}"
        if depth >= DEEPEST:
            return f"… too deep: {type(item).__name__}"
        if isinstance(inside, Mapping):
            return self._object(inside, depth, above | {id(item)})
        items: list[JsonValue] = []
        for place, child in enumerate(inside):
            if self._spent:
                items.append(f"… left out: {len(inside) - place:,} of {len(inside):,}")
                break
            items.append(self.value(child, depth + 1, above | {id(item)}))
        return items

    def _object(
        self, inside: Mapping[Any, Any], depth: int, above: frozenset[int]
    ) -> dict[str, JsonValue]:
        fields: dict[str, JsonValue] = {}
        for place, (key, child) in enumerate(inside.items()):
            if self._spent:
                fields["…"] = f"left out: {len(inside) - place:,} of {len(inside):,}"
                break
            name = stated = self._text(key, MAX_KEY)
            copies = 1
            while name in fields:
                copies += 1
                name = f"{stated}~{copies}"
            fields[name] = self.value(child, depth + 1, above)
        return fields

    @property
    def _spent(self) -> bool:
        return self._values <= 0 or self._characters <= 0

    def _text(self, item: object, limit: int = MAX_CHARACTERS) -> str:
        said = text(item, min(limit, max(self._characters, MAX_KEY)))
        self._characters -= len(said)
        return said


def _inside(item: object) -> Mapping[Any, Any] | list[Any] | None:
    """The fields or items of an object that has such."""
    if isinstance(item, BaseModel):
        return dict(item)
    if isinstance(item, Mapping):
        return item
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        names = (field.name for field in dataclasses.fields(item))
        return {name: getattr(item, name, None) for name in names}
    if isinstance(item, list | tuple | AbstractSet):
        return list(item)
    return None


def _not_finite(number: float) -> str:
    if math.isnan(number):
        return "NaN"
    return "Infinity" if number > 0 else "-Infinity"


def _described(value: object) -> str:
    """An object in words: an exception as its type and text, anything else as it prints itself."""
    kind = type(value).__name__
    try:
        said = str(value)
        if isinstance(value, BaseException):
            return f"{kind}: {said}" if said else kind
    except Exception:  # noqa: BLE001  an object of others may raise whatever it likes
        return f"<{kind}>"
    return str.__str__(said)
