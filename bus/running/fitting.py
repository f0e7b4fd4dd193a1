"""What becomes of work of which something would not fit a message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bus.contract.entity import Entity
from bus.contract.errors import EntityTooLarge
from bus.handling.decisions import Decision
from bus.running.calls import Call
from bus.running.transaction import Told, Transaction
from bus.storage.entities import beside_too_large
from bus.storage.sizes import HEADER_ROOM, require_room_for, too_large


def fitting_rows(tx: Transaction, told: Sequence[Told], max_payload: int) -> list[bytes]:
    """The outbox rows of a command, whose facts must fit beside an entity that does.

    Those of reactions and jobs are bounded; what is told of an entity that is too large already
    is told in a short form.
    """
    rows = tx.outbox_rows(told)
    room = max_payload - HEADER_ROOM
    for one, row in zip(told, rows, strict=True):
        if len(row) > room:
            require_room_for(one.event, len(row), max_payload)
    return rows


def decision_too_large(
    decision: Decision[Any], own: Entity | None, max_payload: int
) -> EntityTooLarge | None:
    """The refusal of a decision of which something is too large: its entity, or what is beside."""
    refusal = too_large(decision.entity, own, max_payload)
    return refusal or beside_too_large(decision.beside, max_payload)


def without_what_is_too_large(
    call: Call,
    entities: Sequence[Entity | None],
    given: Mapping[str, Any],
    refusal: EntityTooLarge,
    decision: Decision[Any],
    *,
    max_payload: int,
) -> Decision[Any]:
    """What is done of a command that makes its entity too large: nothing, save if it is vital.

    A heartbeat with too much progress still says that its agent lives. A refusal stays one,
    and keeps nothing.
    """
    if decision.refusal is not None:
        return Decision.unchanged(entities[0], refusal=decision.otherwise)
    if not call.bound.declared.vital:
        raise refusal
    fields = call.bound.operation.model_fields
    needed = {name: getattr(call.message, name) for name in fields if fields[name].is_required()}
    message = call.bound.operation.model_construct(None, **needed)
    bare: Decision[Any] = call.bound.handling.function(message, *entities, **given)
    if (still := beside_too_large(bare.beside, max_payload)) is not None:
        raise still
    bare.refusal = refusal
    return bare
