"""What does not fit a message is told in a short form, so that it keeps nothing else from it.

What takes up the most goes first: a text is cut to its beginning, JSON of others is left out, null
where it may be. Of several entities each has its part of the room. Ids, states and times stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import NoneType
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import from_json, to_json

from bus.contract.entity import Entity
from bus.contract.page import Page

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


def may_be_short(kind: type[BaseModel]) -> bool:
    """Whether a reply of this kind tells of entities; a page of them is cut by their number."""
    if issubclass(kind, Entity):
        return True
    fields = kind.model_fields.values()
    return not issubclass(kind, Page) and any(_model_of(field.annotation) for field in fields)


def shorten(kind: type[BaseModel], body: bytes, room: int) -> bytes:
    """The JSON of an entity, or of a reply that holds some, shorter; it may still be too large."""
    return to_json(_shortened(from_json(body), kind, room))


def _shortened(found: dict[str, Any], kind: type[BaseModel], room: int) -> dict[str, Any]:
    hints = {name: field.annotation for name, field in kind.model_fields.items()}
    if not issubclass(kind, Entity) and any(map(_model_of, hints.values())):
        hints = {name: hint for name, hint in hints.items() if _model_of(hint)}
    sizes = {name: len(to_json(found[name])) for name in hints if name in found}
    left = len(to_json(found))
    for name in sorted(sizes, key=sizes.__getitem__, reverse=True):
        if left <= room:
            break
        found[name] = _cut(found[name], hints[name], max(0, sizes[name] - (left - room)))
        left += len(to_json(found[name])) - sizes[name]
    return found


def _cut(value: Any, hint: Any, room: int) -> Any:
    model = _model_of(hint)
    if model is not None and isinstance(value, dict):
        return _shortened(value, model, room)
    if model is not None and isinstance(value, list):
        share = room // (len(value) or 1) - 1
        return [one if len(to_json(one)) <= share else _cut(one, model, share) for one in value]
    if isinstance(value, str):
        return value if len(value) <= BEGINNING else value[:BEGINNING] + "…"
    if not isinstance(value, list | dict):
        return value
    return None if NoneType in get_args(hint) else type(value)()


def _model_of(hint: Any) -> type[BaseModel] | None:
    """The model that a field holds, or a list of them."""
    if isinstance(hint, type) and get_origin(hint) is None:
        return hint if issubclass(hint, BaseModel) else None
    return next((found for part in get_args(hint) if (found := _model_of(part))), None)
