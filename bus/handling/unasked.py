"""What runs without being asked for: reactions to events, and jobs when their time has come."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar, get_args, get_origin, overload

from bus.contract.event import Event
from bus.handling.dependencies import dependencies
from bus.handling.shape import JOB, REACTION
from bus.handling.shapes import HANDLERS, Handling, Periodic, check_emits, check_written
from bus.handling.signatures import signature, union, wrong
from bus.storage.driver import Compiled

F = TypeVar("F", bound=Callable[..., Any])

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
        asked = dependencies(REACTION, function, hints, parameters[1:])
        handling = Handling(
            REACTION,
            function,
            None,
            events=tuple(kinds),
            emits=emits,
            dependencies=asked.special,
            provided=asked.provided,
            about=about,
            where=where,
            of=of,
        )
        check_emits(handling)
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
        asked = dependencies(JOB, function, hints, parameters)
        name = function.__name__
        handling = Handling(
            JOB,
            function,
            None,
            emits=emits,
            dependencies=asked.special,
            provided=asked.provided,
        )
        check_written(handling)
        if wrongly := JOB.returns(hints.get("return"), int):
            raise wrong(function, wrongly)
        check_emits(handling)
        if name in HANDLERS.jobs:
            raise wrong(function, f"there is another job called {name}")
        HANDLERS.jobs[name] = Periodic(name, handling, every, limit, vital)
        return function

    return declare
