"""Everything that is declared, found by importing every module of every context folder."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from bus.contract.event import EVENTS, Event
from bus.contract.operation import OPERATIONS, Operation
from bus.contract.refusals import DeclarationError


@dataclass(frozen=True)
class Context:
    """One folder of contracts, one NATS service."""

    name: str
    summary: str
    operations: tuple[type[Operation[Any]], ...]
    events: tuple[type[Event], ...]


@dataclass(frozen=True)
class Catalogue:
    """All contexts with their operations and events."""

    contexts: tuple[Context, ...]

    @property
    def operations(self) -> tuple[type[Operation[Any]], ...]:
        """All operations, by context and subject."""
        return tuple(operation for context in self.contexts for operation in context.operations)

    @property
    def events(self) -> tuple[type[Event], ...]:
        """All events, by context and type."""
        return tuple(event for context in self.contexts for event in context.events)

    def only(self, name: str) -> Catalogue:
        """The context of this name alone; nothing where there is none."""
        return Catalogue(tuple(context for context in self.contexts if context.name == name))


def load(contracts: str, only: Collection[str] | None = None) -> Catalogue:
    """Import every contract under a package, given by its name; return what they declare.

    Of the contexts that are named in ``only``, if it is given.
    """
    root = importlib.import_module(contracts)
    contexts = []
    owners: dict[str, str] = {}
    for folder in pkgutil.iter_modules(root.__path__):
        if not folder.ispkg or folder.name.startswith("_"):
            continue
        if only is not None and folder.name not in only:
            continue
        package = importlib.import_module(f"{contracts}.{folder.name}")
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{contracts}.{folder.name}.{module.name}")
            if module.name.startswith("_"):
                continue
            other = owners.setdefault(module.name, folder.name)
            if other != folder.name:
                raise DeclarationError(
                    f"{module.name} is a noun of {other} and of {folder.name}; nouns are unique"
                )
        if not package.__doc__:
            raise DeclarationError(
                f"{contracts}/{folder.name}/__init__.py needs a docstring: it describes the service"
            )
        contexts.append(_context(folder.name, " ".join(package.__doc__.split())))
    return Catalogue(tuple(contexts))


def _context(name: str, summary: str) -> Context:
    return Context(
        name,
        summary,
        tuple(sorted((o for o in OPERATIONS.values() if o.declared.context == name), key=_subject)),
        tuple(sorted((e for e in EVENTS.values() if e.fact.context == name), key=_type)),
    )


def _subject(operation: type[Operation[Any]]) -> str:
    return operation.declared.subject


def _type(event: type[Event]) -> str:
    return event.fact.type
