"""Operations bound to the functions that handle them; checked whole when the process starts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pydantic_core import SchemaSerializer, SchemaValidator

from bus.contract import catalogue as _catalogue
from bus.contract.catalogue import Catalogue
from bus.contract.entity import Entity
from bus.contract.errors import EVERYWHERE, InvalidReference
from bus.contract.event import Event
from bus.contract.model import built
from bus.contract.operation import Declared, Operation
from bus.contract.page import item_of
from bus.contract.references import references
from bus.contract.refusals import DeclarationError, Refusal
from bus.handling.dependencies import Provided
from bus.handling.shape import JOB
from bus.handling.shapes import HANDLERS, Handling, Periodic
from bus.running.contexts import import_all, with_needed
from bus.running.declared import answered
from bus.storage.tables import TABLES

NOTHING: Final[Mapping[str, Any]] = {}


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
        return self.handling.shape.batched


@dataclass(frozen=True)
class Registry:
    """All operations of this process by subject, and the reactions by the events they follow."""

    catalogue: Catalogue
    operations: dict[str, Bound]
    reactions: dict[type[Event], tuple[Handling, ...]]
    jobs: tuple[Periodic, ...] = ()
    strict: bool = False
    """Whether what a handler does without declaring it fails its transaction, as in tests."""
    given: Mapping[Handling, Mapping[str, Any]] = field(default_factory=dict)
    """What each function is given of what the process has, by the names of its parameters."""

    def with_provided(self, provided: Provided) -> Registry:
        """This registry in a process that has this; refuses what somebody asks for and it lacks."""
        handlings = [bound.handling for bound in self.operations.values()]
        handlings += [one.preparation for one in handlings if one.preparation is not None]
        handlings += [one for several in self.reactions.values() for one in several]
        handlings += [job.handling for job in self.jobs]
        given = {one: provided.of(one.function, one.provided) for one in handlings if one.provided}
        return replace(self, given=given)

    def given_to(self, handling: Handling) -> Mapping[str, Any]:
        """What a function is given of what the process has."""
        return self.given.get(handling, NOTHING)

    def emitters(self) -> Mapping[type[Event], list[str]]:
        """Who emits each event: operations by subject, reactions and jobs by name; for the docs."""
        found: dict[type[Event], list[str]] = {event: [] for event in self.catalogue.events}
        for operation in self.catalogue.operations:
            for event in operation.declared.emits:
                found[event].append(f"`{operation.declared.subject}`")
        reactions = dict.fromkeys(one for several in self.reactions.values() for one in several)
        others = [*reactions, *(job.handling for job in self.jobs)]
        for handling in sorted(others, key=lambda one: (one.shape is JOB, one.name)):
            for event in handling.emits:
                found[event].append(f"{handling.shape} `{handling.name}`")
        return found


def load(
    *, contracts: str, persistence: str, handlers: str, only: Collection[str] | None = None
) -> Registry:
    """Import all that is in the packages of these names and bind it; refuse what does not fit.

    Of contexts that are named in ``only``, and those that they need: reactions and jobs of others
    are absent too.
    """
    packages = (contracts, persistence, handlers)
    contexts = None if only is None else with_needed(only, packages)
    catalogue = _catalogue.load(contracts, contexts)
    for package in (persistence, handlers):
        import_all(package, contexts)
    handlings = _handlings(catalogue.operations)
    for operation, handling in handlings.items():
        _check_references(operation, handling)
        _check_record(operation, handling)
        for need in handling.needs:
            if need.entity not in TABLES:
                raise DeclarationError(
                    f"{operation.__name__} needs a {need.entity.noun}: no table holds one"
                )
    built(*TABLES)  # first, for most replies hold entities
    operations = {o.declared.subject: _bind(o, handling) for o, handling in handlings.items()}
    reactions: dict[type[Event], tuple[Handling, ...]] = {}
    for handling in HANDLERS.reactions:
        if _lies_in(contexts, handling):
            for event in handling.events:
                reactions[event] = (*reactions.get(event, ()), handling)
    jobs = tuple(job for job in HANDLERS.jobs.values() if _lies_in(contexts, job.handling))
    return Registry(catalogue, operations, reactions, jobs)


def _lies_in(contexts: Collection[str] | None, handling: Handling) -> bool:
    """Whether a reaction or a job is of one of these contexts, by the folder of its module."""
    return contexts is None or handling.function.__module__.split(".")[-2] in contexts


def _handlings(
    operations: Iterable[type[Operation[Any]]],
) -> dict[type[Operation[Any]], Handling]:
    """How each operation is handled: by its function, else by its declaration."""
    known = HANDLERS.by_operation
    found = {o: known.get(o) or answered(o) for o in operations}
    if lacking := [o.__name__ for o, handling in found.items() if handling is None]:
        raise DeclarationError(
            f"no handler for {', '.join(lacking)} (a GetOf needs none, nor a ListOf with a Listing)"
        )
    return {o: handling for o, handling in found.items() if handling is not None}


def _check_record(operation: type[Operation[Any]], handling: Handling) -> None:
    """A secret that is revealed is put on record."""
    if operation.declared.reveals and not handling.dependencies & {"audit", "audits"}:
        raise DeclarationError(f"{operation.__name__} reveals: its handler takes audit")


def _check_references(operation: type[Operation[Any]], handling: Handling) -> None:
    if not (referring := references(operation)):
        return
    if not handling.shape.decides:
        raise DeclarationError(
            f"{operation.__name__} has a Ref in {', '.join(referring)}: only a decider's is read"
        )
    if InvalidReference not in operation.declared.errors:
        raise DeclarationError(f"{operation.__name__} has a Ref: it declares InvalidReference")


def _bind(operation: type[Operation[Any]], handling: Handling) -> Bound:
    declared = operation.declared
    built(operation, declared.reply)
    validator = operation.__pydantic_validator__
    assert isinstance(validator, SchemaValidator)
    return Bound(
        operation=operation,
        declared=declared,
        handling=handling,
        validator=validator,
        serializer=declared.reply.__pydantic_serializer__,
        item=item_of(declared.reply),
        may_raise=(*declared.errors, *EVERYWHERE),
    )
