"""What happens to doors."""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import Refusal
from bus.handling import Decision, Emit, Kept, carry_out, decider, handler, reaction
from bus.storage import fetch, get_locked, lock, numbered, save
from tests.bus.doors.contracts.doors.doors import (
    UNDECLARED,
    CallAtDoors,
    CodeWrong,
    CreateDoor,
    Door,
    DoorBarkedAt,
    DoorKnocked,
    DoorNotFound,
    DoorTried,
    KnockAtDoor,
    NobodyIn,
    OpenDoor,
    RingAtDoor,
    TryDoor,
    TryDoors,
)
from tests.bus.doors.persistence.doors.tables import Visit

RIGHT = "1234"


def visit(door: Door, who: str, now: datetime) -> Visit:
    return Visit.first(
        now=now,
        door_id=door.id,
        number=door.knocks,
        who=who,
        at=now,
        details={"who": who},
        print_=hashlib.sha256(who.encode()).digest(),
    )


def knocked(door: Door, who: str, now: datetime) -> Decision[Door]:
    after = door.evolve(now, knocks=door.knocks + 1)
    return Decision(after, DoorKnocked(door=after), beside=[visit(after, who, now)])


@decider
def create_door(command: CreateDoor, *, new_id: UUID, now: datetime) -> Decision[Door]:
    door = Door.first(id=new_id, now=now, name=command.name, knocks=0, wrong=0)
    return Decision(door, beside=[visit(door, "builder", now)])


@decider
def knock_at_door(command: KnockAtDoor, door: Door, *, now: datetime) -> Decision[Door]:
    how = command.how
    if how == "refuse":
        raise NobodyIn
    if how == "raise":
        raise ValueError("nobody knows why")
    who = {"violate": "nobody", "too_large": "x" * 1_100_000}.get(how, command.who)
    if how == "too_large_and_keep":
        who = "x" * 1_100_000
    decision = knocked(door, who, now)
    if how == "twice":
        decision.beside = (*decision.beside, *decision.beside)
    if how.endswith("keep"):
        decision.refusal = decision.otherwise = NobodyIn()
    if how == "refuse_undeclared":
        decision.refusal = UNDECLARED
    return decision


@decider
def ring_at_door(command: RingAtDoor, door: Door, *, now: datetime) -> Decision[Door]:
    return knocked(door, command.who, now)


DOG = numbered("SELECT 1 FROM doors.visits WHERE door_id = ANY(:ids) AND who = 'dog'")
VISITS = numbered("SELECT count(*) AS count FROM doors.visits WHERE door_id = :id")


@reaction(where=DOG, emits=(DoorBarkedAt,))
async def bark(events: Sequence[DoorKnocked], *, db: AsyncConnection, emit: Emit) -> None:
    for event in events:
        [row] = await fetch(db, VISITS, {"id": event.door.id})
        emit(DoorBarkedAt(door=event.door, visits=row["count"]))


@handler
async def call_at_doors(
    command: CallAtDoors, *, db: AsyncConnection, emit: Emit, now: datetime
) -> Door:
    found = await lock(db, Door, command.ids)
    decisions = [knocked(found[id_], command.who, now) for id_ in command.ids]
    await carry_out(decisions, db=db, emit=emit)
    return decisions[-1].entity


async def counted(db: AsyncConnection, door: Door, now: datetime) -> Door:
    after = door.evolve(now, wrong=door.wrong + 1)
    await save(db, [after])
    return after


def refusal(then: str) -> Refusal | Kept:
    if then == "undeclared":
        return Kept(UNDECLARED)
    kept, otherwise = CodeWrong(counted="and counted"), CodeWrong(counted="and forgotten")
    return Kept(kept, otherwise=otherwise)


@handler
async def try_door(
    command: TryDoor, *, db: AsyncConnection, emit: Emit, now: datetime
) -> Door | Kept:
    door = await get_locked(db, Door, command.id)
    if command.code == RIGHT:
        return door
    tried = await counted(db, door, now)
    emit(DoorTried(door=tried))
    if command.then == "refuse":
        raise NobodyIn
    said = refusal(command.then)
    assert isinstance(said, Kept)
    return said


@handler
async def try_doors(
    commands: Sequence[TryDoors], *, db: AsyncConnection, emits: Sequence[Emit], now: datetime
) -> list[Door | Refusal | Kept]:
    doors = await lock(db, Door, {command.id for command in commands})
    said: list[Door | Refusal | Kept] = []
    for command, emit in zip(commands, emits, strict=True):
        if command.id not in doors:
            said.append(DoorNotFound(id=command.id))
        elif command.code == RIGHT:
            said.append(doors[command.id])
        elif command.then == "refuse":
            said.append(NobodyIn())
        else:
            doors[command.id] = tried = await counted(db, doors[command.id], now)
            emit(DoorTried(door=tried))
            said.append(refusal(command.then))
    return said


@handler
async def open_door(
    command: OpenDoor, *, db: AsyncConnection, emit: Emit, now: datetime
) -> Door | Kept:
    door = await get_locked(db, Door, command.id)
    if command.code == RIGHT:
        return door
    emit(DoorTried(door=await counted(db, door, now)))
    return Kept(CodeWrong(counted="and counted"))
