"""The shapes of handler. A decorator reads the signature: the first parameter is the
operation, the rest names what the function needs.

    @query      async (query, *, db) -> Reply              reads; Postgres itself refuses a write
    @query      (query, entity) -> Reply                   reads one entity by id, gathered
    @decider    (command, entity, ...) -> Decision         pure; runs in batches
    @handler    async (command, *, db, emit) -> Reply      several entities; one transaction each
    @handler    async (commands, *, db, emits) -> list     the same for many commands at once
    @together   (command) -> list[GivenCommand]            names others, for one transaction
    @reaction   async (events, *, db, emit) -> None        what must follow in the same transaction
    @periodic   async (*, db, emit, now, limit) -> int     periodic work, one bounded step

Keyword-only dependencies: ``db`` (the transaction's connection), ``emit`` (tell an event),
``emits`` (the same, one for each of many commands), ``now`` (the database's clock), ``new_id`` (a
fresh UUIDv7, for what is created), ``catalogue`` (all that is declared), ``published`` (how far the
stream has the log), ``keys`` (what seals credentials), ``room`` (the bytes that a reply may take),
``limit`` (how much a job's step may handle), ``at_once`` (rows that a deletion takes along),
``served_at`` (when requests were answered last: what runs out later, and could have been prolonged,
is not over) and two settings: ``retention`` (how long history is kept) and ``stall_after`` (how
long an agent may make no progress). A decider's entity is found by the command's ``id``, or by
``worker_check_id`` where the noun of the subject is another one (``db.checks.report``); a further
entity parameter ``phase`` by its ``phase_id``: None where that is, or is required and names none.
What must only exist is no parameter: the contract says ``phase_id: Ref[Phase]``.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Literal, TypeVar, get_args, get_origin, overload
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.catalogue import Catalogue
from bus.contract.event import Event
from bus.contract.operation import Operation
from bus.contract.refusals import Refusal, snake_case
from bus.contract.several import GivenCommand
from bus.handling.decisions import Decision, Emit
from bus.handling.needs import Needed, needed, referred
from bus.handling.published import Published
from bus.handling.signatures import signature, union, wrong
from bus.storage.driver import Compiled
from bus.storage.sealed import KeyRing

F = TypeVar("F", bound=Callable[..., Any])

Shape = Literal[
    "query", "lookup", "decider", "handler", "gathered handler", "together", "reaction", "job"
]


DEPENDENCIES: dict[str, Any] = {
    "db": AsyncConnection,
    "emit": Emit,
    "emits": Sequence[Emit],
    "now": datetime,
    "new_id": UUID,
    "catalogue": Catalogue,
    "published": Published,
    "limit": int,
    "at_once": int,
    "retention": timedelta,
    "stall_after": timedelta | None,
    "served_at": datetime,
    "keys": KeyRing,
    "room": int,
}

_ALLOWED: dict[Shape, set[str]] = {
    "query": {"db", "now", "catalogue", "published", "keys", "room"},
    "lookup": set(),
    "decider": {"now", "new_id"},
    "handler": {"db", "emit", "now", "new_id", "keys", "at_once"},
    "gathered handler": {"db", "emits", "now", "room"},
    "together": set(),
    "reaction": {"db", "emit", "now"},
    "job": {"db", "emit", "now", "limit", "retention", "stall_after", "served_at", "keys"},
}


@dataclass(frozen=True)
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
    dependencies: frozenset[str] = frozenset()
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
        return next((n for n in self.entities if n.own), None) if self.shape == "decider" else None

    @property
    def creates(self) -> bool:
        """Whether this decider makes an entity rather than changing one."""
        return self.shape == "decider" and self.own is None


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
    reactions: list[Handling] = field(default_factory=list)
    jobs: dict[str, Periodic] = field(default_factory=dict)


HANDLERS = Handlers()


def query(function: F) -> F:
    """Handle a query: ``async (query, *, db)``, or plain ``(query, entity)`` to be gathered."""
    return _operation("query" if inspect.iscoroutinefunction(function) else "lookup", function)


def decider(function: F) -> F:
    """Handle a command on one entity with a pure function."""
    return _operation("decider", function)


def handler(function: F) -> F:
    """Handle a command over several entities, or a sequence of such commands at once.

    Of a sequence each command has its own answer, in the same order: its reply or its refusal.
    """
    hints, parameters = signature(function)
    several = get_origin(hints[parameters[0].name]) is Sequence
    return _operation("gathered handler" if several else "handler", function)


def together(function: F) -> F:
    """Handle a command by others that it holds: the bus runs them in one transaction."""
    if signature(function)[0].get("return") != list[GivenCommand]:
        raise wrong(function, "it returns list[GivenCommand], the commands in order")
    return _operation("together", function)


Reaction = Callable[..., Awaitable[None]]


@overload
def reaction(function: Reaction, /) -> Reaction: ...


@overload
def reaction(
    *,
    about: Callable[[Any], bool] | None = None,
    where: Compiled | None = None,
    of: Callable[[Any], Iterable[Any]] | None = None,
    emits: tuple[type[Event], ...] = (),
) -> Callable[[Reaction], Reaction]: ...


def reaction(
    function: Reaction | None = None,
    /,
    *,
    about: Callable[[Any], bool] | None = None,
    where: Compiled | None = None,
    of: Callable[[Any], Iterable[Any]] | None = None,
    emits: tuple[type[Event], ...] = (),
) -> Any:
    """Do what must follow from events in the same transaction: ``async (events, *, db, emit)``.

    ``emits`` names the events that it emits itself. ``about`` tells by an event alone whether it
    matters. ``where`` is a query with a parameter ``ids``, the ids of what the events are about, or
    those that ``of`` gives of an event (what the same statement inserts is not seen): where it
    finds nothing the reaction is not run. It is asked together with the last statement of the
    transaction, so a reaction that is seldom needed costs no round trip; its rows must not appear
    while the entities of the events, or what it locks itself, are locked.
    """

    def declare(function: Reaction) -> Reaction:
        hints, parameters = signature(function)
        wanted = hints[parameters[0].name]
        if get_origin(wanted) is not Sequence:
            raise wrong(function, "its first parameter is annotated Sequence[SomeEvent]")
        kinds = union(get_args(wanted)[0])
        if not all(isinstance(kind, type) and issubclass(kind, Event) for kind in kinds):
            raise wrong(function, "its first parameter is a sequence of declared events")
        if where is not None and where.order != ("ids",):
            raise wrong(function, "what it needs to find has one parameter, ids")
        handling = Handling(
            "reaction",
            function,
            None,
            events=tuple(kinds),
            emits=emits,
            dependencies=_dependencies("reaction", function, hints, parameters[1:]),
            about=about,
            where=where,
            of=of,
        )
        _check_emits(handling)
        HANDLERS.reactions.append(handling)
        return function

    return declare if function is None else declare(function)


def periodic(
    *, every: float, limit: int, vital: bool = False, emits: tuple[type[Event], ...] = ()
) -> Callable[[F], F]:
    """Do periodic work in bounded steps: ``async (*, db, emit, now, limit)`` returns how much.

    Of all processes one at a time runs a step, in a transaction of its own; its events,
    which ``emits`` names, and the reactions to them are like those of any command.
    """

    def declare(function: F) -> F:
        hints, parameters = signature(function)
        if not inspect.iscoroutinefunction(function) or hints.get("return") is not int:
            raise wrong(function, "a job is async and returns how much it handled, an int")
        dependencies = _dependencies("job", function, hints, parameters)
        name = function.__name__
        handling = Handling("job", function, None, emits=emits, dependencies=dependencies)
        _check_emits(handling)
        if name in HANDLERS.jobs:
            raise wrong(function, f"there is another job called {name}")
        HANDLERS.jobs[name] = Periodic(name, handling, every, limit, vital)
        return function

    return declare


def _operation(shape: Shape, function: F) -> F:
    hints, parameters = signature(function)
    operation = hints.get(parameters[0].name)
    if shape == "gathered handler":
        (operation,) = get_args(operation)
    if not (isinstance(operation, type) and issubclass(operation, Operation)):
        raise wrong(function, "its first parameter is annotated with an operation")
    kind = "query" if shape in {"query", "lookup"} else "command"
    if operation.declared.kind != kind:
        raise wrong(function, f"{operation.__name__} is a {operation.declared.kind}")
    if function.__name__ != (name := snake_case(operation.__name__)):
        raise wrong(function, f"the handler of {operation.__name__} is called {name}")
    if function.__module__.split(".")[1:] != operation.__module__.split(".")[1:]:
        place = operation.__module__.replace("contracts", "handlers", 1).replace(".", "/")
        raise wrong(function, f"the handler of {operation.__name__} lies in {place}.py")
    positional = [p for p in parameters[1:] if p.kind is p.POSITIONAL_OR_KEYWORD]
    keywords = [p for p in parameters[1:] if p.kind is p.KEYWORD_ONLY]
    returns = hints.get("return")
    decided = get_args(returns)[0] if get_origin(returns) is Decision else None
    entities = tuple(
        needed(function, operation, p.name, hints[p.name], decided) for p in positional
    )
    handling = Handling(
        shape,
        function,
        operation,
        emits=operation.declared.emits,
        entities=entities,
        references=referred(operation, entities) if shape == "decider" else (),
        dependencies=_dependencies(shape, function, hints, keywords),
    )
    _check_shape(handling, returns)
    if shape in {"handler", "gathered handler"}:
        _check_emits(handling)
    if HANDLERS.by_operation.setdefault(operation, handling) is not handling:
        raise wrong(function, f"{operation.__name__} has a handler already")
    return function


def _dependencies(
    shape: Shape,
    function: Callable[..., Any],
    hints: dict[str, Any],
    parameters: list[inspect.Parameter],
) -> frozenset[str]:
    for parameter in parameters:
        name = parameter.name
        if parameter.kind is not parameter.KEYWORD_ONLY:
            raise wrong(function, f"the dependency {name} is keyword-only")
        if name not in _ALLOWED[shape]:
            known = ", ".join(sorted(_ALLOWED[shape])) or "none"
            raise wrong(function, f"{name} is no dependency of a {shape} (there are: {known})")
        if hints[name] != DEPENDENCIES[name]:
            raise wrong(function, f"{name} is annotated {DEPENDENCIES[name]}")
    return frozenset(parameter.name for parameter in parameters)


def _check_emits(handling: Handling) -> None:
    function = handling.function
    emits: tuple[Any, ...] = handling.emits
    if not all(isinstance(kind, type) and issubclass(kind, Event) for kind in emits):
        raise wrong(function, "emits= is a tuple of declared events")
    takes = bool(handling.dependencies & {"emit", "emits"})
    if takes and not emits:
        raise wrong(function, "it takes emit and declares no events: say emits=(SomeEvent,)")
    if emits and not takes:
        raise wrong(function, "it declares events and takes no emit")


def _check_shape(handling: Handling, returns: Any) -> None:
    function, operation = handling.function, handling.operation
    assert operation is not None
    asynchronous = handling.shape in {"query", "handler", "gathered handler"}
    if inspect.iscoroutinefunction(function) != asynchronous:
        raise wrong(function, f"a {handling.shape} is {_ASYNC[handling.shape]}")
    if handling.shape == "lookup" and [need.field for need in handling.entities] != ["id"]:
        raise wrong(function, "a plain query takes the entity that its id names, and only that")
    if asynchronous and handling.entities:
        raise wrong(function, "an async handler fetches its entities itself, through db")
    if handling.shape == "decider":
        if get_origin(returns) is not Decision:
            raise wrong(function, "a decider returns Decision[Entity]")
    elif handling.shape == "gathered handler":
        reply = operation.declared.reply
        if get_origin(returns) is not list or {*union(get_args(returns)[0])} != {reply, Refusal}:
            raise wrong(function, f"of a sequence it returns list[{reply.__name__} | Refusal]")
    elif handling.shape != "together" and returns != operation.declared.reply:
        raise wrong(function, f"it returns {operation.declared.reply.__name__}, as declared")


_ASYNC = {
    "query": "async",
    "handler": "async",
    "gathered handler": "async",
    "lookup": "a plain function",
    "together": "a plain function",
    "decider": "a plain function, without I/O",
}
