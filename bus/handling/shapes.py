"""The shapes of handler. A decorator reads the signature: the first parameter is the
operation, the rest names what the function needs.

    @query      async (query, *, db) -> Reply              reads; Postgres itself refuses a write
    @query      (query, entity) -> Reply                   reads one entity by id, gathered
    @decider    (command, entity, ...) -> Decision         pure; runs in batches
    @handler    async (command, *, db, emit) -> Reply      several entities; one transaction each
    @handler    async (commands, *, db, emits) -> list     the same for many commands at once
    @together   (command) -> list[GivenCommand]            names others, for one transaction
    @prepare    async (command, *, db) -> Slow[Prepared]   what is done before the transaction
    @reaction   async (events, *, db, emit) -> None        what must follow in the same transaction
    @periodic   async (*, db, emit, now, limit) -> int     periodic work, one bounded step

Keyword-only dependencies: ``db`` (the transaction's connection), ``emit`` (tell an event),
``emits`` (the same, one for each of many commands), ``audit`` and ``audits`` (put on record what no
event tells), ``now`` (the database's clock), ``new_id`` (a
fresh UUIDv7, for what is created), ``room`` (the bytes that a reply may take), ``limit`` (how much
a step of a job may handle) and ``served_at`` (the last moment at which requests were answered: what
runs out later, and could have been prolonged, is not over yet). Whatever else the process has is
asked for by its type (``keys: KeyRing``), and a setting by its name
(``stall_after: Annotated[timedelta | None, Configured("stall_after")]``).

A decider's entity is found by the command's ``id``, or by ``worker_check_id`` where the noun of the
subject is another one (``db.checks.report``); a further entity parameter ``phase`` by its
``phase_id``: None where that is, or is required and names none. What must only exist is no
parameter: the contract says ``phase_id: Ref[Phase]``. A query by id takes the entity first, then
what lies beside it or is named by it (``lookups.py``). A handler that refuses and keeps what it did
returns ``Kept(refusal)``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar, get_args, get_origin

from bus.contract.event import Event
from bus.contract.operation import Operation
from bus.contract.refusals import snake_case
from bus.handling.decisions import Decision
from bus.handling.dependencies import Asked, dependencies
from bus.handling.lookups import LookedUp, looked_up
from bus.handling.needs import Needed, needed, referred
from bus.handling.preparing import Prepared, operation_of, prepared_by
from bus.handling.shape import (
    DECIDER,
    GATHERED,
    HANDLER,
    LOOKUP,
    PREPARATION,
    QUERY,
    TOGETHER,
    Shape,
    keeps,
)
from bus.handling.signatures import signature, wrong
from bus.storage.driver import Compiled

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, eq=False)
class Handling:
    """One decorated function, as its signature declares it."""

    shape: Shape
    function: Callable[..., Any]
    operation: type[Operation[Any]] | None
    events: tuple[type[Event], ...] = ()
    """What a reaction follows."""
    emits: tuple[type[Event], ...] = ()
    """What it may emit itself: as the operation declares, or the decorator of others."""
    entities: tuple[Needed, ...] = ()
    references: tuple[Needed, ...] = ()
    """What must exist, of a decider, and is not handed to its function."""
    looked_up: LookedUp | None = None
    """What a query by id is handed."""
    dependencies: frozenset[str] = frozenset()
    """What it asks for by names that the bus knows."""
    provided: Mapping[str, Asked] = field(default_factory=dict)
    """What it asks for that the process has, by the names of its parameters."""
    preparation: Handling | None = None
    """What is done before its transaction, of a command that is prepared."""
    prepared_as: str = ""
    """The parameter that takes what was prepared."""
    prepares: Prepared | None = None
    """What this function prepares, if that is its shape."""
    about: Callable[[Any], bool] | None = None
    """Which of its events a reaction is about; None if all."""
    where: Compiled | None = None
    """What a reaction needs to find in the database to be run; None if nothing."""
    of: Callable[[Any], Iterable[Any]] | None = None
    """The ids of an event that ``where`` is asked with; None for that of what it is about."""

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.__name__

    @cached_property
    def may_emit(self) -> frozenset[type[Event]]:
        """What it emits, to be asked for each event."""
        return frozenset(self.emits)

    def ids(self, event: Event) -> Iterable[Any]:
        """The ids of an event of a reaction that ``where`` is asked with."""
        return [event.entity_id] if self.of is None else self.of(event)

    @cached_property
    def needs(self) -> tuple[Needed, ...]:
        """Every entity that is read for this function."""
        return (*self.entities, *self.references)

    @cached_property
    def own(self) -> Needed | None:
        """The entity that a decider changes, found by the command's id; None if it makes one."""
        found = (need for need in self.entities if need.own)
        return next(found, None) if self.shape.decides else None

    @property
    def creates(self) -> bool:
        """Whether this decider makes an entity rather than changing one."""
        return self.shape.decides and self.own is None


@dataclass(frozen=True)
class Periodic:
    """A job, which is periodic work: a function that handles up to ``limit`` of what is due."""

    name: str
    handling: Handling
    every: float
    """Seconds between two rounds."""
    limit: int
    """A step that handled this much is followed by another at once."""
    vital: bool
    """Whether it waits behind no other work, as vital operations do."""


@dataclass
class Handlers:
    """Everything that was decorated."""

    by_operation: dict[type[Operation[Any]], Handling] = field(default_factory=dict)
    preparations: dict[type[Operation[Any]], Handling] = field(default_factory=dict)
    reactions: list[Handling] = field(default_factory=list)
    jobs: dict[str, Periodic] = field(default_factory=dict)


HANDLERS = Handlers()


def query(function: F) -> F:
    """Handle a query: ``async (query, *, db)``, or plain ``(query, entity)`` to be gathered."""
    return _operation(QUERY if inspect.iscoroutinefunction(function) else LOOKUP, function)


def decider(function: F) -> F:
    """Handle a command on one entity with a pure function."""
    return _operation(DECIDER, function)


def handler(function: F) -> F:
    """Handle a command over several entities, or a sequence of such commands at once.

    Of a sequence each command has its own answer, in the same order: its reply or its refusal.
    """
    hints, parameters = signature(function)
    several = get_origin(hints[parameters[0].name]) is Sequence
    return _operation(GATHERED if several else HANDLER, function)


def together(function: F) -> F:
    """Handle a command by others that it holds: the bus runs them in one transaction."""
    return _operation(TOGETHER, function)


def prepare(function: F) -> F:
    """Do something before the transaction of a command; it stands above the handler.

    ``async (command, *, db) -> Prepared``: it reads, and if there is work that takes the processor
    long it returns ``Slow[Prepared]``, which is done in a thread and holds no connection.
    """
    hints, parameters = signature(function)
    operation = operation_of(function, hints[parameters[0].name])
    prepares = prepared_by(function, hints)
    asked = dependencies(PREPARATION, function, hints, parameters[1:])
    if operation in HANDLERS.by_operation:
        raise wrong(function, f"it stands above the handler of {operation.__name__}")
    handling = Handling(
        PREPARATION,
        function,
        operation,
        dependencies=asked.special,
        provided=asked.provided,
        prepares=prepares,
    )
    if HANDLERS.preparations.setdefault(operation, handling) is not handling:
        raise wrong(function, f"{operation.__name__} is prepared already")
    return function


def _operation(shape: Shape, function: F) -> F:
    hints, parameters = signature(function)
    operation = hints.get(parameters[0].name)
    if shape.several:
        (operation,) = get_args(operation)
    if not (isinstance(operation, type) and issubclass(operation, Operation)):
        raise wrong(function, "its first parameter is annotated with an operation")
    if operation.declared.kind != shape.handles:
        raise wrong(function, f"{operation.__name__} is a {operation.declared.kind}")
    if function.__name__ != (name := snake_case(operation.__name__)):
        raise wrong(function, f"the handler of {operation.__name__} is called {name}")
    if function.__module__.split(".")[-2:] != operation.__module__.split(".")[-2:]:
        place = operation.__module__.replace("contracts", "handlers", 1).replace(".", "/")
        raise wrong(function, f"the handler of {operation.__name__} lies in {place}.py")
    positional = [p for p in parameters[1:] if p.kind is p.POSITIONAL_OR_KEYWORD]
    keywords = [p for p in parameters[1:] if p.kind is p.KEYWORD_ONLY]
    returns = hints.get("return")
    looked, entities = _taken(shape, function, operation, hints, positional)
    preparation = HANDLERS.preparations.get(operation)
    prepared_as = ""
    if preparation is not None and preparation.prepares is not None:
        prepared_as = preparation.prepares.parameter(shape, function, hints)
        keywords = [p for p in keywords if p.name != prepared_as]
    asked = dependencies(shape, function, hints, keywords)
    handling = Handling(
        shape,
        function,
        operation,
        emits=operation.declared.emits,
        entities=entities,
        references=referred(operation, entities) if shape.decides else (),
        looked_up=looked,
        dependencies=asked.special,
        provided=asked.provided,
        preparation=preparation,
        prepared_as=prepared_as,
    )
    check_written(handling)
    _check_returns(handling, operation, returns)
    if shape.emits:
        check_emits(handling)
    if HANDLERS.by_operation.setdefault(operation, handling) is not handling:
        raise wrong(function, f"{operation.__name__} has a handler already")
    return function


def _taken(
    shape: Shape,
    function: Callable[..., Any],
    operation: type[Operation[Any]],
    hints: Mapping[str, Any],
    parameters: Sequence[inspect.Parameter],
) -> tuple[LookedUp | None, tuple[Needed, ...]]:
    """What a function takes by its positional parameters, and which entities are among it."""
    if shape.entities == "the one":
        looked = looked_up(function, operation, hints, parameters)
        return looked, looked.entities
    returns = hints.get("return")
    decided = get_args(returns)[0] if get_origin(returns) is Decision else None
    return None, tuple(
        needed(function, operation, p.name, hints[p.name], decided) for p in parameters
    )


def _check_returns(handling: Handling, operation: type[Operation[Any]], returns: Any) -> None:
    function, declared = handling.function, operation.declared
    if wrongly := handling.shape.returns(returns, declared.reply):
        raise wrong(function, wrongly)
    if declared.judges and not keeps(returns):
        reply = declared.reply.__name__
        raise wrong(function, f"it judges a guess, so that one is counted: say {reply} | Kept")


def check_emits(handling: Handling) -> None:
    """Refuse events that are declared and not emitted, or the other way round."""
    function = handling.function
    emits: tuple[Any, ...] = handling.emits
    if not all(isinstance(kind, type) and issubclass(kind, Event) for kind in emits):
        raise wrong(function, "emits= is a tuple of declared events")
    takes = bool(handling.dependencies & {"emit", "emits"})
    if takes and not emits:
        raise wrong(function, "it takes emit and declares no events: say emits=(SomeEvent,)")
    if emits and not takes:
        raise wrong(function, "it declares events and takes no emit")


def check_written(handling: Handling) -> None:
    """Refuse a function that is not written as its shape asks for."""
    shape, function = handling.shape, handling.function
    if inspect.iscoroutinefunction(function) != shape.asynchronous:
        raise wrong(function, f"a {shape} is {shape.written}")
    if shape.entities == "none" and handling.entities:
        raise wrong(function, f"a {shape} is handed no entities: an async one fetches its own")
