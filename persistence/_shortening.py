"""What does not fit a message is told in a short form, so that it keeps nothing else from it.

What takes up the most goes first: a text is cut to its beginning, a list or an object is left out,
null where it may be. Ids, states and times are small and stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import NoneType
from typing import Any, Final, get_args

from pydantic_core import from_json, to_json

from contracts._declare import Entity

BEGINNING: Final = 1_000
"""Characters that are left of a text."""


def how_many_fit(texts: Sequence[str], room: int) -> int:
    """How many texts from the first on have so many bytes together, with commas between them."""
    if sum(map(len, texts)) * 4 + len(texts) <= room:
        return len(texts)
    left = room + 1
    for number, text in enumerate(texts):
        left -= len(text.encode()) + 1
        if left < 0:
            return number
    return len(texts)


def shorten(entity: type[Entity], body: bytes, room: int) -> bytes:
    """An entity's JSON, so short that it fits."""
    found: dict[str, Any] = from_json(body)
    sizes = {name: len(to_json(value)) for name, value in found.items()}
    left = len(body)
    for name in sorted(sizes, key=sizes.__getitem__, reverse=True):
        if left <= room:
            break
        found[name] = _shortened(found[name], entity.model_fields[name].annotation)
        left += len(to_json(found[name])) - sizes[name]
    return to_json(found)


def _shortened(value: Any, annotation: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= BEGINNING else value[:BEGINNING] + "…"
    if not isinstance(value, list | dict):
        return value
    return None if NoneType in get_args(annotation) else type(value)()
