"""What was decided of entities, and how it is carried out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, Self, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.entity import Entity
from bus.contract.event import Event
from bus.contract.model import Reply
from bus.contract.refusals import Refusal
from bus.storage.entities import Beside, save

E = TypeVar("E", bound=Entity)

Emit = Callable[[Event], None]


class Decision(Generic[E]):
    """What a decider decided: the entity as it will be, the events that tell it, the answer.

    The reply is the entity unless another is given. With ``refusal`` the caller is refused and the
    change is kept nevertheless, such as late work; ``otherwise`` is said where it is too large.
    ``beside`` has rows that are added in the statement that writes the change: what an attempt was
    that has ended, a line of a history.
    Where nothing changes it is ``Decision.unchanged(entity)``: a decider that returns the entity as
    it was given without saying so, or says so of another one, has a bug. Tests fail then; in
    production what is another entity is saved, and the events are emitted, whatever was said.
    """

    __slots__ = ("beside", "changed", "entity", "events", "otherwise", "refusal", "reply")

    def __init__(
        self,
        entity: E,
        *events: Event,
        reply: Reply | None = None,
        refusal: Refusal | None = None,
        otherwise: Refusal | None = None,
        beside: Iterable[Beside] = (),
    ) -> None:
        self.entity, self.events, self.beside = entity, events, (*beside,)
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


class Kept:
    """What a handler answers that refuses a command and keeps what it did nevertheless.

    A guess that was wrong is counted: what was written and emitted stays, and with an idempotency
    key the refusal is the answer to each repetition. ``otherwise`` is said where nothing can be
    kept, of several commands in one transaction.
    """

    __slots__ = ("otherwise", "refusal")

    def __init__(self, refusal: Refusal, *, otherwise: Refusal | None = None) -> None:
        self.refusal = refusal
        self.otherwise = otherwise or refusal


async def carry_out(decisions: Sequence[Decision[Any]], *, db: AsyncConnection, emit: Emit) -> None:
    """Save the entities that these decisions changed, and emit their events in this order.

    The entities are there and locked, each decided once; one statement saves all of a kind, and
    adds what lies beside them.
    """
    kinds: dict[type[Entity], list[Decision[Any]]] = {}
    for decision in decisions:
        if decision.changed:
            kinds.setdefault(type(decision.entity), []).append(decision)
    for changed in kinds.values():
        beside = [row for decision in changed for row in decision.beside]
        await save(db, [decision.entity for decision in changed], beside=beside)

    for decision in decisions:
        for event in decision.events:
            emit(event)
