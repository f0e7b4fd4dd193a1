"""Commands that put something on record, and end in one of several ways."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.errors import CredentialsUnreadable
from bus.contract.fields import Text
from bus.contract.model import Reply
from bus.contract.operation import Command, Operation
from bus.contract.refusals import Refusal
from bus.contract.sensitive import Sensitive
from bus.handling import Audit, Emit, Kept, handler
from bus.handling.shapes import HANDLERS
from bus.running.registry import Registry, _bind
from bus.storage import entities as _entities
from contracts.planning.tasks import Task, TaskUpdated
from tests.bus.probes import ProbeRefused, restored

WATCH, WATCH_ALL, WATCH_SECRET = "db.probes.watch", "db.probes.watch_all", "db.probes.watch_secret"

Then = Literal["answer", "refuse", "keep", "bulk", "misname", "misplace"]


class Watched(Reply):
    """That it was done."""

    note: str


class WatchedSecret(Reply):
    """A secret that was made."""

    made: Sensitive[str]


def _record(audit: Audit, note: str, then: Then, entity: Task | None = None) -> None:
    kind = "Misnamed" if then == "misname" else "probe.watched"
    ip = "nowhere" if then == "misplace" else "2001:0db8::1"
    audit(kind, entity=entity, ip=ip, note=note * (5000 if then == "bulk" else 1), count=3)


def declare() -> list[type[Operation[Any]]]:
    """Declare and decorate them; the caller keeps the registries clean."""

    class WatchProbe(Command[Watched], subject=WATCH, errors=(ProbeRefused,), emits=(TaskUpdated,)):
        """Put something on record, and end as asked."""

        __module__ = "contracts.planning.probes"

        note: str = "n"
        task: Annotated[UUID, Field(strict=False)] | None = None
        then: Then = "answer"
        silent: bool = False

    class WatchAllProbe(Command[Watched], subject=WATCH_ALL, errors=(ProbeRefused,)):
        """The same, gathered."""

        __module__ = "contracts.planning.probes"

        note: str = "n"
        then: Then = "answer"

    class WatchSecretProbe(
        Command[WatchedSecret],
        subject=WATCH_SECRET,
        errors=(CredentialsUnreadable,),
        secret=True,
    ):
        """Put what it is told on record, which may hold the secret."""

        __module__ = "contracts.planning.probes"

        secret: Sensitive[dict[str, Text]]
        note: str

    async def watch_probe(
        command: WatchProbe, *, db: AsyncConnection, emit: Emit, audit: Audit
    ) -> Watched | Kept:
        await db.execute(text("INSERT INTO bus.sweeps (job) VALUES (gen_random_uuid()::text)"))
        task = await _entities.get(db, Task, command.task) if command.task else None
        if not command.silent:
            _record(audit, command.note, command.then, task)
        if task is not None:
            emit(TaskUpdated(task=task))
        if command.then == "refuse":
            raise ProbeRefused(why="asked for")
        if command.then == "keep":
            return Kept(ProbeRefused(why="asked for"))
        return Watched(note=command.note)

    async def watch_all_probe(
        commands: Sequence[WatchAllProbe], *, audits: Sequence[Audit]
    ) -> list[Watched | Refusal | Kept]:
        answers: list[Watched | Refusal | Kept] = []
        for command, audit in zip(commands, audits, strict=True):
            _record(audit, command.note, command.then)
            refusal = ProbeRefused(why="asked for")
            ends: dict[str, Refusal | Kept] = {"refuse": refusal, "keep": Kept(refusal)}
            answers.append(ends.get(command.then, Watched(note=command.note)))
        return answers

    async def watch_secret_probe(command: WatchSecretProbe, *, audit: Audit) -> WatchedSecret:
        audit("probe.watched", note=command.note)
        return WatchedSecret(made="made-of-the-reply")

    for function, operation in (
        (watch_probe, WatchProbe),
        (watch_all_probe, WatchAllProbe),
        (watch_secret_probe, WatchSecretProbe),
    ):
        function.__module__ = operation.__module__.replace("contracts", "handlers")
        handler(function)
    return [WatchProbe, WatchAllProbe, WatchSecretProbe]


def with_audited(registry: Registry) -> Registry:
    """The registry with these bound beside its operations."""
    with restored():
        bound = [_bind(operation, HANDLERS.by_operation[operation]) for operation in declare()]
    return replace(registry, operations=registry.operations | {one.subject: one for one in bound})
