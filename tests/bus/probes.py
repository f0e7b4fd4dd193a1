"""Operations for tests only: what no real one does on purpose, like raising, waiting or writing
in a query. They are bound beside the real ones and leave no trace in what is declared."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, Field
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.errors import (
    AlreadyExists,
    ConstraintViolated,
    CredentialsUnreadable,
    InvalidReference,
    InvalidTransition,
)
from bus.contract.fields import Text
from bus.contract.model import Reply
from bus.contract.operation import OPERATIONS, Command, Operation, Query
from bus.contract.refusals import Conflict
from bus.contract.sensitive import Sensitive
from bus.handling import Decision, Emit, decider, handler, query
from bus.handling.shapes import HANDLERS
from bus.running.registry import Registry, _bind
from bus.storage import entities as _entities
from contracts.planning.projects import Project
from contracts.planning.tasks import Task, TaskNotFound, TaskUpdated


class ProbeRefused(Conflict, detail="refused: {why}"):
    """A refusal that the operation declares."""

    why: str


class ProbeResult(Reply):
    """What a statement returned, as text."""

    rows: list[str]


class SecretResult(Reply):
    """A secret, told back."""

    secret: Sensitive[str]


Then = Literal["answer", "refuse", "refuse_undeclared", "raise", "swallow"]
How = Literal[
    "change", "keep", "same", "another", "refuse", "refuse_and_keep", "raise", "violate", "huge"
]


def _not_numbered(secret: str) -> str:
    if secret[:1].isdigit():
        raise ValueError(f"{secret} begins with a digit")
    return secret


def declare() -> list[type[Operation[Any]]]:
    """Declare and decorate the probes; the caller keeps the registries clean."""

    class RunProbe(
        Command[ProbeResult],
        subject="db.probes.run",
        errors=(ProbeRefused, AlreadyExists, ConstraintViolated, InvalidReference),
        emits=(TaskUpdated,),
    ):
        """Run SQL in a transaction of its own, then end as asked."""

        __module__ = "contracts.planning.probes"

        sql: list[str]
        values: dict[str, int] | None = None
        then: Then = "answer"
        task: Annotated[UUID, Field(strict=False)] | None = None

    class ReadProbe(Query[ProbeResult], subject="db.probes.read", errors=(ProbeRefused,)):
        """Run SQL in a query."""

        __module__ = "contracts.planning.probes"

        sql: list[str]
        then: Then = "answer"

    class NoteProbe(
        Command[Task],
        subject="db.tasks.probe_note",
        errors=(TaskNotFound, ProbeRefused, ConstraintViolated),
        emits=(TaskUpdated,),
    ):
        """Append to the summary of a task, or fail in one of several ways."""

        __module__ = "contracts.planning.tasks"

        id: Annotated[UUID, Field(strict=False)]
        note: str = "."
        how: How = "change"

    class CreateProbe(
        Command[Project], subject="db.projects.probe_create", errors=(AlreadyExists,)
    ):
        """Create a project without telling anyone."""

        __module__ = "contracts.planning.projects"

        name: str
        id: Annotated[UUID, Field(strict=False)] | None = None

    class SecretProbe(
        Command[SecretResult],
        subject="db.probes.secret",
        errors=(CredentialsUnreadable, ProbeRefused),
        secret=True,
    ):
        """Tell a secret back, or fail in words that hold it."""

        __module__ = "contracts.planning.probes"

        secret: Sensitive[Annotated[Text, AfterValidator(_not_numbered)]]
        parts: Sensitive[dict[str, int] | None] = None
        then: Literal["answer", "raise", "violate", "answer wrongly"] = "answer"

    async def secret_probe(command: SecretProbe, *, db: AsyncConnection) -> SecretResult:
        secret = command.secret
        if command.then == "violate":
            await db.execute(text("SELECT CAST(CAST(:secret AS text) AS int)"), {"secret": secret})
        if command.then == "raise":
            raise ValueError(secret)
        wrong: Any = [secret] if command.then == "answer wrongly" else secret
        return SecretResult(secret=wrong)

    async def run_probe(command: RunProbe, *, db: AsyncConnection, emit: Emit) -> ProbeResult:
        try:
            rows = await _run(db, command.sql, command.values)
        except DBAPIError:
            if command.then != "swallow":
                raise
            rows = []
        if command.task is not None:
            emit(TaskUpdated(task=await _entities.get_locked(db, Task, command.task)))
        return _end(command.then, rows)

    async def read_probe(query: ReadProbe, *, db: AsyncConnection) -> ProbeResult:
        return _end(query.then, await _run(db, query.sql))

    def note_probe(command: NoteProbe, task: Task, *, now: datetime) -> Decision[Task]:
        return _note(task, command.note, command.how, now)

    def create_probe(command: CreateProbe, *, now: datetime, new_id: UUID) -> Decision[Project]:
        return Decision(
            Project.first(
                id=new_id,
                now=now,
                name=command.name,
                url="https://example.org/" + str(new_id),
                default_branch="main",
                description=None,
                last_fetched_at=None,
                archived_at=None,
            )
        )

    for decorate, function, operation in (
        (handler, run_probe, RunProbe),
        (query, read_probe, ReadProbe),
        (decider, note_probe, NoteProbe),
        (decider, create_probe, CreateProbe),
        (handler, secret_probe, SecretProbe),
    ):
        function.__module__ = operation.__module__.replace("contracts", "handlers")
        decorate(function)
    return [RunProbe, ReadProbe, NoteProbe, CreateProbe, SecretProbe]


def with_probes(registry: Registry) -> Registry:
    """The registry with the probes bound beside its operations."""
    with restored():
        bound = [_bind(operation, HANDLERS.by_operation[operation]) for operation in declare()]
    return replace(
        registry, operations=registry.operations | {probe.subject: probe for probe in bound}
    )


@contextmanager
def restored() -> Iterator[None]:
    declared, handled = dict(OPERATIONS), dict(HANDLERS.by_operation)
    prepared, reactions = dict(HANDLERS.preparations), list(HANDLERS.reactions)
    try:
        yield
    finally:
        OPERATIONS.clear()
        OPERATIONS.update(declared)
        HANDLERS.by_operation.clear()
        HANDLERS.by_operation.update(handled)
        HANDLERS.preparations.clear()
        HANDLERS.preparations.update(prepared)
        HANDLERS.reactions[:] = reactions


async def _run(
    db: AsyncConnection, statements: list[str], values: dict[str, int] | None = None
) -> list[str]:
    rows: list[str] = []
    for statement in statements:
        result = await db.execute(text(statement), values or {})
        if result.returns_rows:
            rows += [str(row[0]) for row in result]
    return rows


def _end(then: Then, rows: list[str]) -> ProbeResult:
    if then == "refuse":
        raise ProbeRefused(why="asked for")
    if then == "refuse_undeclared":
        raise InvalidTransition(
            entity="probe", id=UUID(int=0), from_="here", to="there", expected="elsewhere"
        )
    if then == "raise":
        raise ValueError("the secret value 42")
    return ProbeResult(rows=rows)


def _note(task: Task, note: str, how: How, now: datetime) -> Decision[Task]:
    if how == "refuse":
        raise ProbeRefused(why=note)
    if how == "raise":
        raise ValueError("the secret value 42")
    if how == "keep":
        return Decision.unchanged(task)
    if how == "same":
        return Decision(task, TaskUpdated(task=task))
    summary = "x" * 1_100_000 if how == "huge" else (task.summary or "") + note
    status = "nonsense" if how == "violate" else task.status
    noted = task.evolve(now, summary=summary, status=status)
    if how == "another":
        return Decision.unchanged(noted)
    refusal = ProbeRefused(why=note) if how == "refuse_and_keep" else None
    return Decision(noted, TaskUpdated(task=noted), refusal=refusal)
