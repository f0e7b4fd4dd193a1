"""How the signature of a handler is read, and what is told of a wrong one."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from typing import Any, get_args, get_origin, get_type_hints

from bus.contract.refusals import DeclarationError


def signature(
    function: Callable[..., Any],
) -> tuple[dict[str, Any], list[inspect.Parameter]]:
    """The annotations and the parameters of a function that annotates all of them."""
    hints = get_type_hints(function, include_extras=True)
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters or any(p.name not in hints for p in parameters):
        raise wrong(function, "every parameter is annotated")
    return hints, parameters


def folder(cls: type) -> str:
    """The package that a class is declared in."""
    return cls.__module__.rsplit(".", 1)[0]


def union(hint: Any) -> tuple[Any, ...]:
    """The types of which an annotation allows one."""
    if get_origin(hint) in {typing.Union, types.UnionType}:
        return get_args(hint)
    return (hint,)


def wrong(function: Callable[..., Any], what: str) -> DeclarationError:
    """The error that tells what is wrong with a function."""
    return DeclarationError(f"{function.__module__}.{function.__qualname__}: {what}")
