"""Operations bound to the functions that handle them; checked whole when the process starts."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic_core import SchemaSerializer, SchemaValidator

from bus.contract import catalogue as _catalogue
from bus.contract.catalogue import Catalogue
from bus.contract.entity import Entity
from bus.contract.errors import EVERYWHERE
from bus.contract.event import Event
from bus.contract.operation import Declared, Operation
from bus.contract.page import Page
from bus.contract.refusals import DeclarationError, Refusal
from bus.handling.shapes import HANDLERS, Handling, Periodic
from bus.storage.discovery import metadata
from bus.storage.tables import TABLES


@dataclass(frozen=True, eq=False)
class Bound:
    """An operation with its handler and the compiled codecs of its messages."""

    operation: type[Operation[Any]]
    declared: Declared
    handling: Handling
    validator: SchemaValidator
    serializer: SchemaSerializer
    item: type[Entity] | None
    """What its reply is a page of, if it is one of entities."""
    may_raise: tuple[type[Refusal], ...]

    @property
    def subject(self) -> str:
        """The NATS subject."""
        return self.declared.subject

    @property
    def batched(self) -> bool:
        """Whether calls of this operation are gathered."""
        return self.handling.shape in {"decider", "lookup", "gathered handler"}


@dataclass(frozen=True)
class Registry:
    """All operations of this process by subject, and the reactions by the events they follow."""

    catalogue: Catalogue
    operations: dict[str, Bound]
    reactions: dict[type[Event], tuple[Handling, ...]]
    jobs: tuple[Periodic, ...] = ()
    strict: bool = False
    """Whether what a handler does without declaring it fails its transaction, as in tests."""

    def emitters(self) -> Mapping[type[Event], list[str]]:
        """Who emits each event: operations by subject, reactions and jobs by name; for the docs."""
        found: dict[type[Event], list[str]] = {event: [] for event in self.catalogue.events}
        for operation in self.catalogue.operations:
            for event in operation.declared.emits:
                found[event].append(f"`{operation.declared.subject}`")
        reactions = dict.fromkeys(one for several in self.reactions.values() for one in several)
        for handling in (*reactions, *(job.handling for job in self.jobs)):
            for event in handling.emits:
                found[event].append(f"{handling.shape} `{handling.name}`")
        return found


def load(*, contracts: str, persistence: str, handlers: str) -> Registry:
    """Import all that is in the packages of these names and bind it; refuse what does not fit."""
    catalogue = _catalogue.load(contracts)
    metadata(persistence)
    root = importlib.import_module(handlers)
    for module in pkgutil.walk_packages(root.__path__, f"{handlers}."):
        importlib.import_module(module.name)
    unhandled = [o for o in catalogue.operations if o not in HANDLERS.by_operation]
    if unhandled:
        names = ", ".join(operation.__name__ for operation in unhandled)
        raise DeclarationError(f"no handler for {names}")
    for handling in HANDLERS.by_operation.values():
        for need in handling.entities:
            if need.entity not in TABLES:
                raise DeclarationError(
                    f"{handling.name} needs a {need.entity.noun}: no table holds one"
                )
    operations = {o.declared.subject: _bind(o) for o in catalogue.operations}
    reactions: dict[type[Event], tuple[Handling, ...]] = {}
    for handling in HANDLERS.reactions:
        for event in handling.events:
            reactions[event] = (*reactions.get(event, ()), handling)
    return Registry(catalogue, operations, reactions, tuple(HANDLERS.jobs.values()))


def _bind(operation: type[Operation[Any]]) -> Bound:
    validator = operation.__pydantic_validator__
    assert isinstance(validator, SchemaValidator)
    declared = operation.declared
    return Bound(
        operation=operation,
        declared=declared,
        handling=HANDLERS.by_operation[operation],
        validator=validator,
        serializer=declared.reply.__pydantic_serializer__,
        item=_item(declared.reply),
        may_raise=(*declared.errors, *EVERYWHERE),
    )


def _item(reply: type[BaseModel]) -> type[Entity] | None:
    made = reply.__pydantic_generic_metadata__
    if made["origin"] is not Page:
        return None
    [item] = made["args"]
    return item if isinstance(item, type) and issubclass(item, Entity) else None
