"""The modules of a domain of toys: ``toy`` becomes the noun, and AREA its context."""

CONTRACT = '''
"""Toys: what is played with."""

from typing import Literal

from bus.contract import (
    AlreadyExists, Command, Count, Entity, Event, GetOf, Id, InvalidTransition, ListOf, Markdown,
    Name, NotFound, Reply, Time, Url, Version, VersionConflict,
)

ToyStatus = Literal["new", "running", "finished"]
ToyPriority = Literal["low", "medium", "high"]


class ToyNotFound(NotFound, detail="toy {id} does not exist"):
    """There is no such toy."""

    id: Id


class Toy(Entity, not_found=ToyNotFound):
    """A toy, with as many fields as most entities have."""

    name: Name
    """What it is called."""
    description: Markdown | None
    """What it is for, and how one plays with it."""
    url: Url | None
    """Where more is said about it."""
    priority: ToyPriority
    status: ToyStatus
    owner_id: Id | None
    """Whose it is."""
    size: Count
    """How many parts it has."""
    started_at: Time | None
    """When somebody began to play with it."""
    finished_at: Time | None
    archived_at: Time | None
    """When it was put away; null if it is there."""


class ToyDeletion(Reply):
    """What was deleted."""

    id: Id


class ToyCreated(Event, type="toy.created"):
    """A toy was created."""

    toy: Toy


class ToyUpdated(Event, type="toy.updated"):
    """Fields of a toy were changed."""

    toy: Toy


class ToyStarted(Event, type="toy.started"):
    """Somebody plays with a toy."""

    toy: Toy


class ToyFinished(Event, type="toy.finished"):
    """Nobody plays with a toy any longer."""

    toy: Toy


class ToyArchived(Event, type="toy.archived"):
    """A toy was put away."""

    toy: Toy


class ToyDeleted(Event, type="toy.deleted"):
    """A toy was deleted."""

    toy: Toy
    """The toy as it last was, with its version one higher."""


class CreateToy(
    Command[Toy], subject="db.toys.create", errors=(AlreadyExists,), emits=(ToyCreated,)
):
    """Create a toy."""

    id: Id | None = None
    """Chosen by the caller, so that it can be created again without harm."""
    name: Name
    description: Markdown | None = None
    url: Url | None = None
    priority: ToyPriority = "medium"
    owner_id: Id | None = None
    size: Count = 0


class GetToy(GetOf[Toy], subject="db.toys.get"):
    """Get one toy by its id."""

    id: Id


class ListToys(ListOf[Toy], subject="db.toys.list"):
    """List toys, a page at a time."""

    status: ToyStatus | None = None
    priority: ToyPriority | None = None


class UpdateToy(
    Command[Toy],
    subject="db.toys.update",
    errors=(ToyNotFound, VersionConflict),
    emits=(ToyUpdated,),
):
    """Update fields of a toy. Only the fields that the request has are changed."""

    id: Id
    expected_version: Version | None = None
    name: Name | None = None
    priority: ToyPriority | None = None
    size: Count | None = None


class StartToy(
    Command[Toy],
    subject="db.toys.start",
    errors=(ToyNotFound, InvalidTransition),
    emits=(ToyStarted,),
):
    """Start to play with a toy."""

    id: Id


class FinishToy(
    Command[Toy],
    subject="db.toys.finish",
    errors=(ToyNotFound, InvalidTransition),
    emits=(ToyFinished,),
):
    """Finish to play with a toy."""

    id: Id


class ArchiveToy(
    Command[Toy], subject="db.toys.archive", errors=(ToyNotFound,), emits=(ToyArchived,)
):
    """Archive a toy; again changes nothing."""

    id: Id


class DeleteToy(
    Command[ToyDeletion], subject="db.toys.delete", errors=(ToyNotFound,), emits=(ToyDeleted,)
):
    """Delete a toy."""

    id: Id
'''

HANDLER = '''
"""What happens to toys."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.handling import Decision, Emit, Transitions, changes, decider, handler
from bus.storage import lock_for_deletion, remove
from PACKAGE.contracts.AREA.toys import (
    ArchiveToy, CreateToy, DeleteToy, FinishToy, StartToy, Toy, ToyArchived, ToyCreated, ToyDeleted,
    ToyDeletion, ToyFinished, ToyStarted, ToyUpdated, UpdateToy,
)

STATES = Transitions(
    noun="toy",
    initial=("new",),
    actions={
        "start": {"new": ("running",), "finished": ("running",)},
        "finish": {"running": ("finished",)},
    },
)


@decider
def create_toy(command: CreateToy, *, new_id: UUID, now: datetime) -> Decision[Toy]:
    toy = Toy.first(
        id=command.id or new_id, now=now, name=command.name, description=command.description,
        url=command.url, priority=command.priority, status="new", owner_id=command.owner_id,
        size=command.size, started_at=None, finished_at=None, archived_at=None,
    )

    return Decision(toy, ToyCreated(toy=toy))


@decider
def update_toy(command: UpdateToy, toy: Toy, *, now: datetime) -> Decision[Toy]:
    toy.expect(command.expected_version)
    if not (changed := changes(command, toy)):
        return Decision.unchanged(toy)

    updated = toy.evolve(now, **changed)

    return Decision(updated, ToyUpdated(toy=updated))


@decider
def start_toy(command: StartToy, toy: Toy, *, now: datetime) -> Decision[Toy]:
    STATES.require(toy, "start")

    started = toy.evolve(now, status="running", started_at=now)

    return Decision(started, ToyStarted(toy=started))


@decider
def finish_toy(command: FinishToy, toy: Toy, *, now: datetime) -> Decision[Toy]:
    STATES.require(toy, "finish")

    finished = toy.evolve(now, status="finished", finished_at=now)

    return Decision(finished, ToyFinished(toy=finished))


@decider
def archive_toy(command: ArchiveToy, toy: Toy, *, now: datetime) -> Decision[Toy]:
    if toy.archived_at is not None:
        return Decision.unchanged(toy)

    archived = toy.evolve(now, archived_at=now)

    return Decision(archived, ToyArchived(toy=archived))


@handler
async def delete_toy(
    command: DeleteToy, *, db: AsyncConnection, emit: Emit, now: datetime
) -> ToyDeletion:
    toy = await lock_for_deletion(db, Toy, command.id)

    await remove(db, toy)
    emit(ToyDeleted(toy=toy.evolve(now)))

    return ToyDeletion(id=toy.id)
'''

LISTING = '''
"""Queries of toys."""

from bus.storage import Listing, equal
from PACKAGE.contracts.AREA.toys import ListToys
from PACKAGE.persistence.AREA.tables import toy

Listing(ListToys, equal(toy, "status", "priority"))
'''

OF_A_NOUN = {"contracts": CONTRACT, "handlers": HANDLER, "persistence": LISTING}
"""Its module in each tree."""
