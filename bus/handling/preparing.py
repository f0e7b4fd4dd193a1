"""What a command needs done before its transaction: reading, and slow work of the processor.

    @prepare
    async def hash_password(command: SignIn, *, db: AsyncConnection) -> Slow[Matched]:
        kept = await passwords.find(db, command.email)
        return Slow(matched, command.password, kept)

    @handler
    async def sign_in(command: SignIn, *, db: AsyncConnection, matched: Matched) -> Session: ...

What is prepared is handed to the parameter that is annotated with its type; of a sequence of
commands, one for each of them. ``db`` only reads. What was read may have changed when the
transaction begins: whoever relies on it looks again.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, TypeVar, get_args, get_origin

from bus.contract.operation import Operation
from bus.handling.shape import PREPARATION, Shape
from bus.handling.signatures import wrong

P = ParamSpec("P")
T = TypeVar("T")


class Slow(Generic[T]):
    """Work that takes the processor long, such as hashing a password: for a thread, in its turn.

    It holds no connection, neither while it waits nor while it is done.
    """

    __slots__ = ("_do",)

    def __init__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> None:
        self._do: Callable[[], T] = lambda: function(*args, **kwargs)

    def __call__(self) -> T:
        """Do it."""
        return self._do()


@dataclass(frozen=True)
class Prepared:
    """What is prepared for the commands of an operation."""

    type: Any
    slow: bool
    """Whether it ends with work for a thread."""

    def parameter(
        self, shape: Shape, function: Callable[..., Any], hints: Mapping[str, Any]
    ) -> str:
        """The name of the parameter that takes it."""
        if not shape.prepared:
            raise wrong(function, f"a {shape} takes nothing that is prepared")
        wanted = (Sequence, (self.type,)) if shape.several else (None, ())
        taking = [
            name
            for name, hint in hints.items()
            if name != "return"
            and (hint is self.type or shape.several)
            and (get_origin(hint), get_args(hint)) == wanted
        ]
        if len(taking) != 1:
            name = f"Sequence[{self.type.__name__}]" if shape.several else self.type.__name__
            raise wrong(function, f"one parameter takes what is prepared: it is annotated {name}")
        return taking[0]


def prepared_by(function: Callable[..., Any], hints: dict[str, Any]) -> Prepared:
    """What a function prepares, by its annotation."""
    returns = hints.get("return")
    slow = get_origin(returns) is Slow
    made = get_args(returns)[0] if slow else returns
    if not (isinstance(made, type) and made.__module__ != "builtins"):
        raise wrong(function, "it returns an object of a class of its own, or Slow[of one]")
    if not inspect.iscoroutinefunction(function):
        raise wrong(function, f"a {PREPARATION} is {PREPARATION.written}")
    return Prepared(made, slow)


def operation_of(function: Callable[..., Any], hint: Any) -> type[Operation[Any]]:
    """The command that a function prepares."""
    if not (isinstance(hint, type) and issubclass(hint, Operation)):
        raise wrong(function, "its first parameter is annotated with an operation")
    if hint.declared.kind != "command":
        raise wrong(function, f"{hint.__name__} is a {hint.declared.kind}")
    return hint
