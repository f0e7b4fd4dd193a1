"""The short form of an event that does not fit one message.

The rule, in the order in which it is tried until the event fits:

1. Texts are cut, all to the same length: 4096, 1024, 256, 64 characters. What was cut ends in "…".
2. The largest members of the entity, and of the body beside it, are left out, one by one. Those
   that take up to 128 bytes stay: id, version, status, times, names of other entities.
3. Only the entity's id, version and status stay.
4. The body is empty: ``{}``.

So what a consumer finds is always an object, and each of its values is either the event's own, or a
text that was cut, or an object with fewer members.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

MARK: Final = "Fleet-Shortened"
"""The header that says it."""

_LENGTHS: Final = (4096, 1024, 256, 64)
_CUT: Final = "…"
_SHORT: Final = 128
_IDENTITY: Final = ("id", "version", "status")
_EMPTY: Final = b"{}"


def shortened(body: str, noun: str, room: int) -> bytes:
    """The body of an event on this noun in so many bytes; ``{}`` if nothing of it fits."""
    try:
        return next(form for form in _forms(json.loads(body), noun, room) if len(form) <= room)
    except (StopIteration, ValueError, RecursionError):
        # Whatever cannot be read, or written again, as JSON that everybody reads.
        return _EMPTY


def is_short_form(short: bytes, body: str) -> bool:
    """Whether it can be a short form of this body, whatever fitted when it was made."""
    try:
        return _is_cut(json.loads(short), json.loads(body))
    except (ValueError, RecursionError):
        return short == _EMPTY


def _forms(value: Any, noun: str, room: int) -> Iterator[bytes]:
    if not isinstance(value, dict):
        return
    for length in _LENGTHS:
        value = _with_texts_cut(value, length)
        yield _encoded(value)
    yield from _without_members(value, noun, room)
    entity = value.get(noun)
    if isinstance(entity, dict):
        yield _encoded({noun: {name: entity[name] for name in _IDENTITY if name in entity}})
    yield _encoded({name: value[name] for name in _IDENTITY if name in value})


def _with_texts_cut(value: Any, length: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= length + len(_CUT) else value[:length] + _CUT
    if isinstance(value, list):
        return [_with_texts_cut(item, length) for item in value]
    if isinstance(value, dict):
        return {name: _with_texts_cut(item, length) for name, item in value.items()}
    return value


def _without_members(value: dict[str, Any], noun: str, room: int) -> Iterator[bytes]:
    """Leave out as many of the largest members as it takes."""
    entity = value.get(noun)
    holders = [{name: item for name, item in value.items() if name != noun}]
    if isinstance(entity, dict):
        holders.append(dict(entity))
    sizes = sorted(
        ((len(_encoded({name: item})), holder, name) for holder in holders
         for name, item in holder.items()),
        key=lambda found: found[0],
        reverse=True,
    )  # fmt: skip
    left = len(_encoded(value))
    for size, holder, name in sizes:
        if left <= room or size <= _SHORT:
            break
        del holder[name]
        left -= size - 1
    beside, *rest = holders
    yield _encoded({**beside, noun: rest[0]} if rest else beside)


def _encoded(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False).encode()


def _is_cut(short: Any, whole: Any) -> bool:
    if isinstance(short, dict) and isinstance(whole, dict):
        return all(name in whole and _is_cut(item, whole[name]) for name, item in short.items())
    if isinstance(short, list) and isinstance(whole, list):
        return len(short) == len(whole) and all(map(_is_cut, short, whole))
    if isinstance(short, str) and isinstance(whole, str):
        return short == whole or (short[-1:] == _CUT and whole.startswith(short[:-1]))
    return type(short) is type(whole) and bool(short == whole)
