"""Operations: commands and queries, each one subject.

A wrong declaration fails at import, with a message that says what to fix.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel

from bus.contract.docs import summary
from bus.contract.errors import EVERYWHERE, CredentialsUnreadable, DryRunRefused
from bus.contract.event import Event
from bus.contract.model import Reply, Request
from bus.contract.place import context_of, module_of
from bus.contract.refusals import DeclarationError, Refusal
from bus.contract.sensitive import all_sensitive_fields

R = TypeVar("R", bound=Reply)

SUBJECT = re.compile(r"^db\.([a-z][a-z0-9_]*)\.([a-z][a-z0-9_]*)$")

OPERATIONS: dict[str, type[Operation[Any]]] = {}
"""Every declared operation by its subject."""


@dataclass(frozen=True)
class Declared:
    """What the class statement of an operation says."""

    subject: str
    kind: Literal["command", "query"]
    context: str
    noun: str
    verb: str
    reply: type[Reply]
    errors: tuple[type[Refusal], ...]
    emits: tuple[type[Event], ...]
    summary: str
    example: Mapping[str, Any]
    vital: bool
    """Whether an agent is wrongly considered dead, or alive, if it comes too late: it does not wait
    behind other work, and is not refused because of it."""
    expensive: bool
    """Whether it always reads more the more there is: it has connections for its kind."""
    secret: bool
    """Whether its request or reply holds a secret: nothing of it is logged, and what is kept with
    an idempotency key is sealed."""
    judges: bool
    """Whether it judges a guess, a password, code or token, which counts whatever becomes of it: so
    it is no dry run, and stands in no transaction with others that could undo it."""
    reveals: bool
    """Whether it reveals a secret, which is put on record: so it is no dry run."""
    transactional: bool
    """Whether it may stand in a transaction with others: a command that is not vital may, unless
    it says otherwise."""

    @property
    def endpoint(self) -> str:
        """The name of the NATS service endpoint: ``tasks_claim``."""
        return f"{self.noun}_{self.verb}"


class Operation(Request, Generic[R]):
    """One subject. Use ``Command[Reply]`` or ``Query[Reply]``, not this."""

    declared: ClassVar[Declared]
    kind_: ClassVar[Literal["command", "query"]]

    def __init_subclass__(
        cls,
        *,
        subject: str | None = None,
        errors: tuple[type[Refusal], ...] = (),
        emits: tuple[type[Event], ...] = (),
        example: Mapping[str, Any] | None = None,
        vital: bool = False,
        expensive: bool = False,
        secret: bool = False,
        judges: bool = False,
        reveals: bool = False,
        transactional: bool = True,
    ) -> None:
        """What a class statement may say; it is read once the fields are known, below."""
        super().__init_subclass__()

    @classmethod
    def reply_of(cls, parameter: type[Reply]) -> type[Reply]:
        """What an operation with this parameter answers: ``Command[Task]`` a Task."""
        return parameter

    @property
    def expensive(self) -> bool:
        """Whether answering this request reads more the more there is."""
        return self.declared.expensive

    @classmethod
    def __pydantic_init_subclass__(
        cls,
        *,
        subject: str | None = None,
        errors: tuple[type[Refusal], ...] = (),
        emits: tuple[type[Event], ...] = (),
        example: Mapping[str, Any] | None = None,
        vital: bool = False,
        expensive: bool = False,
        secret: bool = False,
        judges: bool = False,
        reveals: bool = False,
        transactional: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        generic = cls.__pydantic_generic_metadata__
        if generic["origin"] or (generic["parameters"] and subject is None):
            return  # Command[Reply] itself, or a generic base such as ListOf
        if subject is None:
            raise DeclarationError(f'{cls.__qualname__} needs subject="db.<noun>.<verb>"')
        noun, verb = _matched(cls, subject)
        cls.declared = Declared(
            subject=subject,
            kind=cls.kind_,
            context=_context(cls, noun),
            noun=noun,
            verb=verb,
            reply=_reply(cls),
            errors=_classes(cls, "errors", _errors(errors, real=judges or reveals), Refusal),
            emits=_classes(cls, "emits", emits, Event),
            summary=summary(cls),
            example=example or {},
            vital=vital,
            expensive=expensive,
            secret=secret,
            judges=judges,
            reveals=reveals,
            transactional=transactional
            and cls.kind_ == "command"
            and not (vital or secret or judges),
        )
        _check_operation(cls)


class Command(Operation[R], Generic[R]):
    """An operation that changes something: one transaction, repeatable by idempotency key."""

    kind_ = "command"


class Query(Operation[R], Generic[R]):
    """An operation that reads."""

    kind_ = "query"


def _check_operation(cls: type[Operation[Any]]) -> None:
    declared = cls.declared
    if declared.emits and declared.kind == "query":
        raise DeclarationError(f"{cls.__qualname__} is a query and cannot emit events")
    if declared.vital and declared.kind == "query":
        raise DeclarationError(f"{cls.__qualname__} is a query and cannot be vital")
    if declared.expensive and declared.kind == "command":
        raise DeclarationError(f"{cls.__qualname__} is a command and cannot be expensive")
    if declared.judges and declared.kind == "query":
        raise DeclarationError(f"{cls.__qualname__} is a query and cannot count what it judges")
    if declared.reveals and (declared.kind == "query" or not declared.secret):
        raise DeclarationError(f"{cls.__qualname__} reveals: it is a command with secret=True")
    _check_secrets(cls)
    if implied := set(declared.errors) & set(EVERYWHERE):
        names = ", ".join(error.__name__ for error in implied)
        raise DeclarationError(
            f"{cls.__qualname__}: any operation may answer {names}; leave it out"
        )
    other = OPERATIONS.setdefault(declared.subject, cls)
    if other is not cls:
        raise DeclarationError(
            f"{cls.__qualname__}: subject {declared.subject} is taken by {other.__qualname__}; "
            "one subject is one operation"
        )


def _check_secrets(cls: type[Operation[Any]]) -> None:
    declared = cls.declared
    if declared.secret:
        if declared.kind == "command" and CredentialsUnreadable not in declared.errors:
            raise DeclarationError(
                f"{cls.__qualname__} is secret and needs CredentialsUnreadable among its errors: "
                "without keys its reply cannot be kept"
            )
    elif found := all_sensitive_fields(cls) | all_sensitive_fields(declared.reply):
        names = ", ".join(sorted(found))
        raise DeclarationError(f"{cls.__qualname__} needs secret=True: {names} is sensitive")


def _matched(cls: type[BaseModel], subject: str) -> tuple[str, str]:
    if not (match := SUBJECT.match(subject)):
        raise DeclarationError(
            f"{cls.__qualname__}: {subject!r} is not db.<noun>.<verb> in snake_case"
        )
    return match[1], match[2]


def _context(cls: type[BaseModel], noun: str) -> str:
    context = context_of(cls)
    if noun != (module := module_of(cls)):
        raise DeclarationError(
            f"{cls.__qualname__}: operations on {noun} are declared in "
            f"contracts/{context}/{noun}.py, not in {module}.py"
        )
    return context


def _reply(cls: type[Operation[Any]]) -> type[Reply]:
    for base in cls.__mro__:
        generic: Mapping[str, Any] = getattr(base, "__pydantic_generic_metadata__", {})
        origin, args = generic.get("origin"), generic.get("args", ())
        if origin is not None and isinstance(args[0], type) and issubclass(args[0], Reply):
            reply: type[Reply] = origin.reply_of(args[0])
            return reply
    raise DeclarationError(
        f"{cls.__qualname__} needs its reply, a subclass of Reply: Command[Task], Query[Page[Task]]"
    )


def _errors(given: tuple[Any, ...], *, real: bool) -> tuple[Any, ...]:
    """The errors that an operation names, and the one that says that it is never a dry run."""
    return (*given, DryRunRefused) if real and isinstance(given, tuple) else given


def _classes(cls: type, what: str, given: tuple[Any, ...], base: type) -> tuple[Any, ...]:
    if not isinstance(given, tuple):
        raise DeclarationError(f"{cls.__qualname__}: {what} is a tuple of classes")
    for item in given:
        if not (isinstance(item, type) and issubclass(item, base)):
            raise DeclarationError(
                f"{cls.__qualname__}: {what} names {item!r}, not a subclass of {base.__name__}"
            )
    return given
