"""The items of a page on their way out: entities, or what the database has encoded already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, overload

from pydantic import BaseModel

M = TypeVar("M", bound=BaseModel)


class EncodedItems(Sequence[M]):
    """Items as the database encoded them; code that looks into them gets entities."""

    def __init__(self, entity: type[M], texts: Sequence[str], *, shortened: bool = False) -> None:
        self.entity = entity
        self.texts = texts
        self.shortened = shortened
        """Whether one of them is not shown in full, because it does not fit into a message."""

    def __len__(self) -> int:
        return len(self.texts)

    @overload
    def __getitem__(self, index: int) -> M: ...
    @overload
    def __getitem__(self, index: slice) -> list[M]: ...
    def __getitem__(self, index: int | slice) -> M | list[M]:
        if isinstance(index, slice):
            return [self.entity.model_validate_json(text) for text in self.texts[index]]
        return self.entity.model_validate_json(self.texts[index])


def are_all(entity: type[BaseModel], items: Sequence[Any]) -> bool:
    """Whether all items are of this very class."""
    if isinstance(items, EncodedItems):
        return items.entity is entity
    return all(type(one) is entity for one in items)


def joined(items: Sequence[Any]) -> bytes:
    """The JSON of entities, with commas between."""
    if isinstance(items, EncodedItems):
        return ",".join(items.texts).encode()
    return b",".join([item.encoded() for item in items])
