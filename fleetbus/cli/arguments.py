"""Arguments that are taken as they are.

Typer has pydantic read every argument that is no flag, which takes long to load for a short
command. A text, and a default that nobody has overridden, need nobody to read them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from typer.core import TyperCommand


class Quick(TyperCommand):
    """A command whose texts are taken as they are."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As Typer's."""
        take_as_they_are(self.get_params(ctx))
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed


def take_as_they_are(parameters: Iterable[Any]) -> None:
    """Leave to Typer only what is to be another type than it has."""
    for parameter in parameters:
        single = not getattr(parameter, "multiple", False) and parameter.nargs == 1
        # Another Typer has no such attribute; then it is left as it is.
        if single and getattr(parameter, "_runtime_param", parameter) is None:
            parameter._runtime_param = _AsItIs()  # noqa: SLF001  pinned by a test


class _AsItIs:
    """Reads one argument, as Typer does, from where it would not change it."""

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        wanted = param.type_descriptor.annotation
        if value is None or value is param.default or (wanted is str and type(value) is str):
            return value
        param._runtime_param = None  # noqa: SLF001  pinned by a test
        return param.get_runtime_param().coerce(value, param=param, ctx=ctx)
