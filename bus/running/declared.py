"""Operations that their declaration answers: one that gets an entity, one that lists."""

from __future__ import annotations

from typing import Any

from bus.contract.entity import Entity
from bus.contract.lookup import GetOf
from bus.contract.operation import Operation
from bus.contract.page import ListOf
from bus.handling.lookups import LookedUp, Sought
from bus.handling.shape import LOOKUP, QUERY
from bus.handling.shapes import Handling
from bus.storage.lookups import Part
from bus.storage.paging import LISTINGS


def answered(operation: type[Operation[Any]]) -> Handling | None:
    """How an operation without a function is handled; None if it needs one."""
    if issubclass(operation, GetOf):
        entity = operation.declared.reply
        assert issubclass(entity, Entity)
        sought = Sought(entity.noun, Part(entity), optional=False)
        looked = LookedUp("id", (sought,))
        return Handling(LOOKUP, _as_it_is, operation, entities=looked.entities, looked_up=looked)
    if issubclass(operation, ListOf) and (listing := LISTINGS.get(operation)):
        needed = {"db", "now"} if listing.by_now else {"db"}
        return Handling(QUERY, listing.answer, operation, dependencies=frozenset(needed))
    return None


def _as_it_is(_: GetOf[Any], entity: Entity) -> Entity:
    return entity
