"""A door, who knocked at it, and the code that opens it."""

from typing import Literal
from uuid import UUID

from pydantic import Field

from bus.contract import (
    AlreadyExists,
    Command,
    ConstraintViolated,
    CredentialsUnreadable,
    Entity,
    Event,
    Id,
    InvalidTransition,
    NotFound,
    Refusal,
    Sensitive,
    Text,
)
from bus.contract.refusals import Conflict, Unauthenticated


class DoorNotFound(NotFound, detail="door {id} does not exist"):
    """There is no door with this id."""

    id: Id


class NobodyIn(Conflict):
    """Nobody opens."""


class CodeWrong(Unauthenticated, detail="wrong, {counted}"):
    """The code is wrong."""

    counted: str


class Door(Entity, not_found=DoorNotFound):
    """A door."""

    name: Text
    knocks: int
    wrong: int


class DoorKnocked(Event, type="door.knocked"):
    """Somebody knocked."""

    door: Door


class DoorTried(Event, type="door.tried"):
    """A wrong code was tried."""

    door: Door


class DoorBarkedAt(Event, type="door.barked_at"):
    """A dog barked, for it has been here before."""

    door: Door
    visits: int
    """What it had seen by then."""


class CreateDoor(Command[Door], subject="db.doors.create", errors=(AlreadyExists,)):
    """Create a door."""

    id: Id | None = None
    name: Text = "front"
    code: Text = "1234"


How = Literal[
    "open",
    "refuse",
    "refuse_and_keep",
    "refuse_undeclared",
    "twice",
    "violate",
    "too_large",
    "too_large_and_keep",
    "raise",
]


class KnockAtDoor(
    Command[Door],
    subject="db.doors.knock",
    errors=(DoorNotFound, NobodyIn, ConstraintViolated),
    emits=(DoorKnocked,),
):
    """Knock at a door, which leaves a line of its history, or two."""

    id: Id
    who: Text = "me"
    how: How = "open"


class RingAtDoor(
    Command[Door],
    subject="db.doors.ring",
    errors=(DoorNotFound,),
    emits=(DoorKnocked,),
    vital=True,
):
    """Ring, which has to be heard whatever is said with it."""

    id: Id
    who: Text = "bell"


class CallAtDoors(
    Command[Door],
    subject="db.doors.call",
    errors=(DoorNotFound, ConstraintViolated),
    emits=(DoorKnocked,),
):
    """Knock at several doors, one after the other."""

    ids: list[Id] = Field(min_length=1)
    who: Text = "me"


class TryDoor(
    Command[Door],
    subject="db.doors.try",
    errors=(DoorNotFound, CodeWrong, NobodyIn),
    emits=(DoorTried,),
):
    """Try a code; a wrong one is counted."""

    id: Id
    code: Text
    then: Literal["keep", "undeclared", "refuse"] = "keep"


class TryDoors(
    Command[Door],
    subject="db.doors.try_together",
    errors=(DoorNotFound, CodeWrong, NobodyIn),
    emits=(DoorTried,),
):
    """Try a code, gathered with others."""

    id: Id
    code: Text
    then: Literal["keep", "undeclared", "refuse"] = "keep"


class OpenDoor(
    Command[Door],
    subject="db.doors.open",
    errors=(DoorNotFound, CodeWrong, CredentialsUnreadable),
    emits=(DoorTried,),
    secret=True,
    judges=True,
):
    """Open a door by its code; a wrong one is counted, whatever the caller would like."""

    id: Id
    code: Sensitive[Text]


class UndeclaredByAll(InvalidTransition):
    """What no operation of doors declares."""


UNDECLARED: Refusal = UndeclaredByAll(
    entity="door", id=UUID(int=0), from_="here", to="there", expected="elsewhere"
)
