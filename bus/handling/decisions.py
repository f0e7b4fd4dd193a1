"""What was decided of entities, and how it is carried out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, Self, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.entity import Entity
from bus.contract.event import Event
from bus.contract.model import Reply
from bus.contract.refusals import Refusal
from bus.storage.entities import add, save

E = TypeVar("E", bound=Entity)

Emit = Callable[[Event], None]


class Decision(Generic[E]):
    """What a decider decided: the entity as it will be, the events that tell it, the answer.

    The reply is the entity unless another is given. With ``refusal`` the caller is refused and the
    change is kept nevertheless, such as late work; ``otherwise`` is said where it is too large.
    Where nothing changes it is ``Decision.unchanged(entity)``: a decider that returns the entity as
    it was given without saying so, or says so of another one, has a bug. Tests fail then; in
    production what is another entity is saved, and the events are emitted, whatever was said.
    """

    __slots__ = ("changed", "entity", "events", "otherwise", "refusal", "reply")

    def __init__(
        self,
        entity: E,
        *events: Event,
        reply: Reply | None = None,
        refusal: Refusal | None = None,
        otherwise: Refusal | None = None,
    ) -> None:
        self.entity, self.events = entity, events
        self.reply = entity if reply is None else reply
        self.refusal = refusal
        self.otherwise = otherwise or refusal
        self.changed = True

    @classmethod
    def unchanged(
        cls, entity: E, *, reply: Reply | None = None, refusal: Refusal | None = None
    ) -> Self:
        """Everything stays as it is: nothing is written, and no event is emitted."""
        decision = cls(entity, reply=reply, refusal=refusal)
        decision.changed = False
        return decision


async def carry_out(
    decisions: Sequence[Decision[Any]], *, db: AsyncConnection, emit: Emit, new: bool = False
) -> None:
    """Save the entities that these decisions changed, and emit their events in this order.

    The entities are there and locked, or ``new``; each is decided once. One statement writes all of
    a kind.
    """
    kinds: dict[type[Entity], list[Entity]] = {}
    for decision in decisions:
        if decision.changed:
            kinds.setdefault(type(decision.entity), []).append(decision.entity)
    for changed in kinds.values():
        await (add if new else save)(db, changed)

    emit_all((event for decision in decisions for event in decision.events), emit=emit)


def emit_all(events: Iterable[Event], *, emit: Emit) -> None:
    """Emit events of which nothing is to be saved here, in this order."""
    for event in events:
        emit(event)
