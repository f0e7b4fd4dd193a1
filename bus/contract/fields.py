"""Named field types: what a text, a count or a piece of JSON may be, stated once."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Annotated, Any
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    Field,
    JsonValue,
    Strict,
    StringConstraints,
)

MAX_INT4 = 2**31 - 1
"""The largest value of a Postgres ``integer``."""

MAX_INT8 = 2**63 - 1
"""The largest value of a Postgres ``bigint``."""

MAX_JSON_BYTES = 256 * 1024
MAX_JSON_DEPTH = 64
MAX_JSON_DIGITS = 300


class FieldValueError(ValueError):
    """A value is not what its type takes, in words that quote nothing of it."""


def _storable(text: str) -> str:
    """Postgres stores neither U+0000 nor half a surrogate pair in a text."""
    if "\x00" in text:
        raise FieldValueError("must not contain the character U+0000")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise FieldValueError("must be valid Unicode, without lone surrogates") from None
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise FieldValueError("must not be blank")
    return text


def _not_a_number(time: Any) -> Any:
    """Digits alone would be read as seconds, or as milliseconds where there are many."""
    if isinstance(time, int | float) or (isinstance(time, str) and "-" not in time[1:]):
        raise FieldValueError("must be a time in the format of RFC 3339, like 2026-01-31T12:00:00Z")
    return time


def _in_utc(time: datetime) -> datetime:
    if time.tzinfo is UTC:
        return time
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise FieldValueError("is outside the range of representable times") from None


@cache
def _time_zones() -> frozenset[str]:
    """The names that every process knows, whatever its system has: those of the package."""
    return frozenset((files("tzdata") / "zones").read_text().split()) - {"Factory"}


def _known_zone(name: str) -> str:
    if name != "UTC" and name not in _time_zones():
        raise FieldValueError("must be a name of the IANA time zone database, like Europe/Berlin")
    return name


_UUID = re.compile(
    r"(?:urn:uuid:)?(\{)?[0-9a-f]{8}(-?)[0-9a-f]{4}(\2[0-9a-f]{4}){2}\2[0-9a-f]{12}(?(1)\})",
    re.IGNORECASE,
)
"""The spellings in which an id may be given."""


def one_spelling(name: str) -> str:
    """An id has one spelling, so that names which are ids compare as ids do."""
    return str(UUID(name)) if _UUID.fullmatch(name) else name


def _bounded_json(value: Any) -> Any:
    """JSON that fits a ``jsonb`` column and can be written back the way it came.

    PostgreSQL keeps numbers as decimals and writes them without an exponent: 1e300 comes back as a
    1 with 300 zeros. So such a number counts with its digits, and is written out from the start.
    """
    size = 0
    expands = False
    stack = [(value, 1)]
    while stack:
        item, depth = stack.pop()
        if depth > MAX_JSON_DEPTH:
            raise FieldValueError(f"must not be nested deeper than {MAX_JSON_DEPTH} levels")
        size += _scalar_size(item)
        expands = expands or (type(item) is float and abs(item) >= _WRITTEN_OUT)
        if isinstance(item, dict):
            stack.extend((child, depth + 1) for pair in item.items() for child in pair)
        elif isinstance(item, list):
            stack.extend((child, depth + 1) for child in item)
        if size > MAX_JSON_BYTES:
            raise FieldValueError(f"must not be larger than {MAX_JSON_BYTES} bytes")
    return _written_out(value) if expands else value


_WRITTEN_OUT = 1e16
"""From here on a float has no fraction, and JSON would write it with an exponent."""


def _written_out(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _written_out(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_written_out(child) for child in value]
    if type(value) is float and abs(value) >= _WRITTEN_OUT:
        return int(Decimal(repr(value)))
    return value


def _digits(number: float) -> int:
    """How many digits a number has without an exponent, at most."""
    if number == 0 or not math.isfinite(number):
        return 8
    return abs(math.floor(math.log10(abs(number)))) + 20


def _scalar_size(item: Any) -> int:
    if isinstance(item, str):
        return len(_storable(item).encode()) + 3
    if isinstance(item, float) and not math.isfinite(item):
        raise FieldValueError("must not contain NaN or an infinity")
    if isinstance(item, int) and abs(item) >= 10**MAX_JSON_DIGITS:
        raise FieldValueError(f"must not contain a number of more than {MAX_JSON_DIGITS} digits")
    if isinstance(item, float):
        return _digits(item)
    return max(8, len(str(item))) if isinstance(item, int) else 8


Text = Annotated[str, AfterValidator(_storable)]
"""Any text that can be stored."""

_Line = Annotated[Text, AfterValidator(_not_blank)]

Id = Annotated[UUID, Strict(strict=False)]
"""A UUID as text; version 7 if the service generates it."""

Name = Annotated[_Line, StringConstraints(min_length=1, max_length=200)]
"""A short name, 1–200 characters, not blank."""

Title = Annotated[_Line, StringConstraints(min_length=1, max_length=500)]
"""One line that says what something is, 1–500 characters, not blank."""

Markdown = Annotated[Text, StringConstraints(max_length=100_000)]
"""Text of up to 100,000 characters, in Markdown."""

Summary = Annotated[Text, StringConstraints(max_length=20_000)]
"""The outcome, up to 20,000 characters: context for those who continue from here."""

Reason = Annotated[_Line, StringConstraints(min_length=1, max_length=2_000)]
"""A reason in 1–2,000 characters, for a person to read."""

Url = Annotated[_Line, StringConstraints(min_length=1, max_length=2_000, pattern=r"^\S+$")]
"""An address without spaces, up to 2,000 characters."""

GitRef = Annotated[_Line, StringConstraints(min_length=1, max_length=250, pattern=r"^\S+$")]
"""A branch name or commit, up to 250 characters without spaces."""

ExternalRef = Annotated[_Line, StringConstraints(min_length=1, max_length=200)]
"""The id given by another system, up to 200 characters."""

AgentId = Annotated[
    _Line, StringConstraints(min_length=1, max_length=200), AfterValidator(one_spelling)
]
"""The name of a worker, up to 200 characters: an agent's id or any other name. A UUID in any of its
spellings is stored in lower case with hyphens."""

Search = Annotated[_Line, StringConstraints(min_length=1, max_length=200)]
"""Text to be found anywhere in a name or description, case ignored."""

Time = Annotated[
    AwareDatetime,
    Strict(strict=False),
    BeforeValidator(_not_a_number),
    AfterValidator(_in_utc),
]
"""A point in time, RFC 3339; a time with an offset is converted to UTC."""

TimeZone = Annotated[Text, StringConstraints(min_length=1, max_length=100, pattern=r"^\S+$")]
"""A name of the IANA time zone database, like ``Europe/Berlin``."""

KnownTimeZone = Annotated[TimeZone, AfterValidator(_known_zone)]
"""A name of the IANA time zone database, like ``Europe/Berlin``, that the service knows."""

Json = Annotated[JsonValue, AfterValidator(_bounded_json)]
"""Any JSON value of up to 256 KiB and 64 levels."""

JsonObject = Annotated[dict[str, JsonValue], AfterValidator(_bounded_json)]
"""A JSON object of up to 256 KiB and 64 levels."""

Count = Annotated[int, Field(ge=0, le=MAX_INT4)]
"""A whole number from 0."""

Version = Annotated[int, Field(ge=1, le=MAX_INT4)]
"""How often an entity has changed, from 1."""

Attempt = Annotated[int, Field(ge=0, le=MAX_INT4)]
"""The fencing token of a task: +1 with each claim."""

Position = Annotated[int, Field(ge=-MAX_INT4, le=MAX_INT4)]
"""The place among siblings; smaller comes first."""

LeaseSeconds = Annotated[int, Field(ge=1, le=24 * 60 * 60)]
"""How long a claim holds without being renewed, in seconds, up to a day."""

ABSENT: Any = Field(default_factory=lambda: None)
"""The default of a field that may be left out but not be null: left out, it stays as it is."""

MOST_GONE = 400
"""How many ids an event may name in each of two lists beside its entity."""

GoneIds = Annotated[list[Id], Field(max_length=MOST_GONE)]
"""The ids of the first 400 entities that were deleted along with another one, in order."""
