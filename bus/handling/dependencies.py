"""What functions ask for beside what they are run with: settings by name, gateways by type.

    stall_after: Annotated[timedelta | None, Configured("stall_after")]
    keys: KeyRing

Whoever puts a process together provides them. What nobody provides stops the process.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, get_args, get_origin

from bus.handling.shape import SPECIAL, Shape
from bus.handling.signatures import union, wrong


@dataclass(frozen=True)
class Configured:
    """Marks a parameter that takes a setting."""

    setting: str


@dataclass(frozen=True)
class Asked:
    """What a parameter asks for: a value of this type; of the setting, if it names one."""

    type: Any
    setting: str | None = None

    def __str__(self) -> str:
        """As it is told to whoever provides it."""
        return self.setting or str(getattr(self.type, "__name__", self.type))


@dataclass(frozen=True)
class Dependencies:
    """The keyword-only parameters of a function."""

    special: frozenset[str] = frozenset()
    """Those that the bus knows by their names."""
    provided: Mapping[str, Asked] = field(default_factory=dict)
    """Those that whoever puts the process together provides."""


@dataclass(frozen=True)
class Provided:
    """What a process has for its functions: gateways by their types, settings by their names."""

    gateways: Mapping[Any, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def of(self, function: Callable[..., Any], asked: Mapping[str, Asked]) -> dict[str, Any]:
        """The values of what a function asks for, by the names of its parameters."""
        return {name: self._value(function, name, one) for name, one in asked.items()}

    def _value(self, function: Callable[..., Any], name: str, asked: Asked) -> Any:
        if asked.setting is None:
            if asked.type not in self.gateways:
                raise wrong(function, f"nobody provides {name}: {asked} (there are: {self})")
            return self.gateways[asked.type]
        if asked.setting not in self.settings:
            raise wrong(
                function, f"nobody provides {name}: the setting {asked} (there are: {self})"
            )
        value = self.settings[asked.setting]
        kinds = union(asked.type)
        if all(isinstance(kind, type) for kind in kinds) and not isinstance(value, kinds):
            raise wrong(function, f"{name} is {asked.type}, and the setting {asked} is {value!r}")
        return value

    def __str__(self) -> str:
        """What there is, for whoever asked for something else."""
        gateways = ", ".join(sorted(kind.__name__ for kind in self.gateways)) or "no gateways"
        settings = ", ".join(sorted(self.settings)) or "none"
        return f"{gateways}; the settings {settings}"


def dependencies(
    shape: Shape,
    function: Callable[..., Any],
    hints: Mapping[str, Any],
    parameters: list[inspect.Parameter],
) -> Dependencies:
    """What a function of a shape asks for by these parameters."""
    special: set[str] = set()
    provided: dict[str, Asked] = {}
    for parameter in parameters:
        name = parameter.name
        if parameter.kind is not parameter.KEYWORD_ONLY:
            raise wrong(function, f"the dependency {name} is keyword-only")
        asked = None if name in SPECIAL else _asked(shape, hints[name])
        if asked is not None:
            provided[name] = asked
        elif name not in shape.special:
            raise wrong(function, f"{name} is no dependency of a {shape} ({_known(shape)})")
        elif hints[name] != SPECIAL[name]:
            raise wrong(function, f"{name} is annotated {SPECIAL[name]}")
        else:
            special.add(name)
    return Dependencies(frozenset(special), provided)


def _asked(shape: Shape, hint: Any) -> Asked | None:
    """What an annotation asks for, if a function of this shape may."""
    if get_origin(hint) is Annotated:
        kind, *marks = get_args(hint)
        named = [mark.setting for mark in marks if isinstance(mark, Configured)]
        return Asked(kind, named[0]) if shape.settings and len(named) == 1 else None
    is_gateway = isinstance(hint, type) and hint not in SPECIAL.values()
    return Asked(hint) if shape.gateways and is_gateway else None


def _known(shape: Shape) -> str:
    known = sorted(shape.special)
    known += ["settings"] if shape.settings else []
    known += ["gateways by their type"] if shape.gateways else []
    return f"there are: {', '.join(known) or 'none'}"
