"""Commands with something to do before their transaction: reading, and work for a thread.

The work is done once the gate is open, so that a test can look at what waits.
"""

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.model import Reply
from bus.contract.operation import Command, Operation
from bus.contract.refusals import Refusal
from bus.handling import Decision, Slow, decider, handler, prepare
from bus.handling.shapes import HANDLERS
from bus.running.registry import Registry, _bind
from contracts.planning.tasks import Task, TaskNotFound
from tests.bus.probes import ProbeRefused, restored

OPEN, OPEN_ALL, NOTE_HASH, LOOK = (
    "db.probes.open",
    "db.probes.open_all",
    "db.tasks.note_hash",
    "db.probes.look",
)

Then = Literal["answer", "refuse", "refuse_slowly", "raise", "raise_slowly", "write"]


@dataclass(frozen=True)
class Hashed:
    """What comes of the slow work."""

    digest: str
    thread: str
    read_only: str


@dataclass(frozen=True)
class Looked:
    """What was read before the transaction."""

    tasks: int
    at: datetime


class Opened(Reply):
    """What the handler was given."""

    digest: str
    thread: str
    read_only: str


class Gate:
    """Slow work waits at it, in its thread; counts how often it was begun."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.begun = 0
        self.prepared = 0
        self.opened.set()

    def pass_by(self) -> None:
        self.begun += 1
        assert self.opened.wait(20), "the gate was left shut"


GATE = Gate()


def digest_of(secret: str) -> str:
    return hashlib.scrypt(secret.encode(), salt=b"salt", n=16, r=8, p=1).hex()


def _hash(secret: str, read_only: str, then: Then) -> Hashed:
    GATE.pass_by()
    if then == "refuse_slowly":
        raise ProbeRefused(why="slowly")
    if then == "raise_slowly":
        raise ValueError("the secret value 42")
    return Hashed(digest_of(secret), threading.current_thread().name, read_only)


async def _prepared(db: AsyncConnection, secret: str, then: Then) -> Slow[Hashed]:
    GATE.prepared += 1
    if then == "refuse":
        raise ProbeRefused(why="at once")
    if then == "raise":
        raise ValueError("the secret value 42")
    if then == "write":
        await db.execute(text("INSERT INTO bus.sweeps (job) VALUES ('x')"))
    read_only = (await db.execute(text("SHOW default_transaction_read_only"))).scalar_one()
    return Slow(_hash, secret, read_only, then=then)


def _opened(hashed: Hashed) -> Opened:
    return Opened(digest=hashed.digest, thread=hashed.thread, read_only=hashed.read_only)


def declare() -> list[type[Operation[Any]]]:
    """Declare and decorate them; the caller keeps the registries clean."""

    class OpenProbe(Command[Opened], subject=OPEN, errors=(ProbeRefused,)):
        """Hash, then answer in a transaction."""

        __module__ = "contracts.planning.probes"

        secret: str
        then: Then = "answer"

    class OpenAllProbe(Command[Opened], subject=OPEN_ALL, errors=(ProbeRefused,)):
        """The same, gathered."""

        __module__ = "contracts.planning.probes"

        secret: str
        then: Then = "answer"

    class NoteHashProbe(Command[Task], subject=NOTE_HASH, errors=(TaskNotFound, ProbeRefused)):
        """Hash, then write it into a task."""

        __module__ = "contracts.planning.tasks"

        id: Annotated[UUID, Field(strict=False)]
        secret: str
        then: Then = "answer"

    class LookProbe(Command[Opened], subject=LOOK):
        """Read before the transaction, and do nothing slow."""

        __module__ = "contracts.planning.probes"

    async def prepare_open(command: OpenProbe, *, db: AsyncConnection) -> Slow[Hashed]:
        return await _prepared(db, command.secret, command.then)

    async def prepare_open_all(command: OpenAllProbe, *, db: AsyncConnection) -> Slow[Hashed]:
        return await _prepared(db, command.secret, command.then)

    async def prepare_note(command: NoteHashProbe, *, db: AsyncConnection) -> Slow[Hashed]:
        return await _prepared(db, command.secret, command.then)

    async def prepare_look(_: LookProbe, *, db: AsyncConnection, now: datetime) -> Looked:
        count = (await db.execute(text("SELECT count(*) FROM planning.tasks"))).scalar_one()
        return Looked(count, now)

    async def open_probe(_: OpenProbe, *, hashed: Hashed, db: AsyncConnection) -> Opened:
        await db.execute(text("INSERT INTO bus.sweeps (job) VALUES (gen_random_uuid()::text)"))
        return _opened(hashed)

    async def open_all_probe(
        _: Sequence[OpenAllProbe], *, all_hashed: Sequence[Hashed]
    ) -> list[Opened | Refusal]:
        return [_opened(hashed) for hashed in all_hashed]

    def note_hash_probe(
        _: NoteHashProbe, task: Task, *, hashed: Hashed, now: datetime
    ) -> Decision[Task]:
        return Decision(task.evolve(now, summary=hashed.digest))

    async def look_probe(_: LookProbe, *, looked: Looked, now: datetime) -> Opened:
        early = "before" if looked.at < now else "after"
        return Opened(digest=str(looked.tasks), thread="", read_only=early)

    for decorate, function, operation in (
        (prepare, prepare_open, OpenProbe),
        (prepare, prepare_open_all, OpenAllProbe),
        (prepare, prepare_note, NoteHashProbe),
        (prepare, prepare_look, LookProbe),
        (handler, open_probe, OpenProbe),
        (handler, open_all_probe, OpenAllProbe),
        (decider, note_hash_probe, NoteHashProbe),
        (handler, look_probe, LookProbe),
    ):
        function.__module__ = operation.__module__.replace("contracts", "handlers")
        decorate(function)
    return [OpenProbe, OpenAllProbe, NoteHashProbe, LookProbe]


def with_preparations(registry: Registry) -> Registry:
    """The registry with these bound beside its operations."""
    with restored():
        bound = [_bind(operation, HANDLERS.by_operation[operation]) for operation in declare()]
    return replace(registry, operations=registry.operations | {one.subject: one for one in bound})
