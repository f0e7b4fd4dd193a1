"""Refusals: exceptions that say their own status, type, title and details.

The base class gives the status, the class name the type, the docstring the title, the annotations
the details. The body on the wire is a problem document (RFC 9457).
"""

from __future__ import annotations

import builtins
import re
import string
import uuid
from collections.abc import Mapping
from typing import Any, ClassVar, Self, dataclass_transform, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, create_model

_RESERVED = {"type", "title", "status", "detail", "retryable", "operation"}


class DeclarationError(TypeError):
    """A class statement says something impossible; the message says what to fix."""


def snake_case(name: str) -> str:
    """``TaskNotFound`` → ``task_not_found``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


@dataclass_transform(kw_only_default=True)
class Refusal(Exception):
    """A refusal or failure that a caller is answered; subclass one of the statuses below."""

    status: ClassVar[int] = 0
    type: ClassVar[str] = "refusal"
    title: ClassVar[str] = ""
    retryable: ClassVar[bool] = False
    details: ClassVar[Mapping[str, Any]] = {}
    template: ClassVar[str] = ""

    def __init_subclass__(
        cls, *, detail: str = "", retryable: bool | None = None, **kwargs: Any
    ) -> None:
        super().__init_subclass__(**kwargs)
        if not cls.__doc__ or "__doc__" not in cls.__dict__:
            raise DeclarationError(f"{cls.__qualname__} needs a docstring: it is the error's title")
        cls.type = snake_case(cls.__name__)
        cls.title = " ".join(cls.__doc__.split("\n\n")[0].split())
        cls.template = detail or cls.template
        if retryable is not None:
            cls.retryable = retryable
        hints = _annotations(cls)
        if taken := _RESERVED & {_wire(name) for name in hints}:
            raise DeclarationError(f"{cls.__qualname__} may not redefine {', '.join(taken)}")
        cls.details = hints
        _check_template(cls)

    def __init__(self, **details: Any) -> None:
        optional = {name for name in self.details if hasattr(type(self), name)}
        unknown = details.keys() - self.details.keys()
        missing = self.details.keys() - details.keys() - optional
        if unknown or missing:
            wrong = ", ".join(sorted(unknown | missing))
            raise TypeError(f"{type(self).__name__}: unknown or missing details: {wrong}")
        self._given = details
        for name, value in details.items():
            setattr(self, name, value)
        super().__init__(self.detail)

    @property
    def detail(self) -> str:
        """One sentence with this refusal's own values."""
        if not self.template:
            return self.title
        values = {_wire(name): _plain(getattr(self, name)) for name in self.details}
        return self.template.format_map(values)

    @property
    def operation(self) -> int | None:
        """The index of the command that was refused, of several in one transaction."""
        return self._place[0] if self._place else None

    def of(self, operation: int, subject: str) -> Self:
        """The same refusal, of one of several commands in one transaction."""
        self._place = operation, subject
        return self

    def problem(self) -> dict[str, Any]:
        """The body of the reply, RFC 9457 with ``retryable`` and the details beside it."""
        head = {
            "type": self.type,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "retryable": self.retryable,
        }
        place = dict(zip(("operation", "subject"), self._place, strict=True)) if self._place else {}
        return (
            head
            | place
            | {
                _wire(name): value
                for name in self.details
                if (value := getattr(self, name)) is not None
            }
        )

    @classmethod
    def from_problem(cls, body: Mapping[str, Any]) -> Self:
        """The refusal in a problem document; details that a newer server added are ignored."""
        details = {}
        for name, hint in cls.details.items():
            if (value := body.get(_wire(name))) is not None:
                details[name] = TypeAdapter(hint).validate_python(value, strict=False)
        refusal = cls.__new__(cls)
        refusal._given = details  # noqa: SLF001  our own class
        for name in cls.details:
            setattr(refusal, name, details.get(name, getattr(cls, name, None)))
        Exception.__init__(refusal, body.get("detail", cls.title))
        if (operation := body.get("operation")) is not None:
            refusal.of(operation, body.get("subject", ""))
        return refusal

    @classmethod
    def schema_model(cls) -> builtins.type[BaseModel]:
        """A model of the problem document, for JSON Schema and documentation."""
        fields: dict[str, Any] = {
            "type": (str, cls.type),
            "title": (str, cls.title),
            "status": (int, cls.status),
            "detail": (str, ...),
            "retryable": (bool, cls.retryable),
        }
        for name, hint in cls.details.items():
            fields[_wire(name)] = (hint, getattr(cls, name) if hasattr(cls, name) else ...)
        config = ConfigDict(title=cls.__name__)
        model: builtins.type[BaseModel] = create_model(
            cls.__name__, __doc__=cls.title, __config__=config, **fields
        )
        return model

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self._given)

    _given: Mapping[str, Any] = {}
    _place: tuple[int, str] | None = None


def _rebuild(cls: type[Refusal], details: Mapping[str, Any]) -> Refusal:
    return cls(**details)


def _annotations(cls: type[Refusal]) -> dict[str, Any]:
    own = get_type_hints(cls, include_extras=True)
    base = get_type_hints(Refusal, include_extras=True)
    return {name: hint for name, hint in own.items() if name not in base}


def _check_template(cls: type[Refusal]) -> None:
    names = {_wire(name) for name in cls.details}
    used = {name for _, name, _, _ in string.Formatter().parse(cls.template) if name is not None}
    if unknown := used - names:
        raise DeclarationError(
            f"{cls.__qualname__}: its detail names {', '.join(sorted(unknown))}, "
            f"which is not among its details ({', '.join(sorted(names)) or 'none'})"
        )


def _wire(name: str) -> str:
    return name.rstrip("_")


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, uuid.UUID) else value


class BadRequest(Refusal):
    """The request is not one that this operation understands."""

    status = 400


class Unauthenticated(Refusal):
    """The caller is unknown."""

    status = 401


class Forbidden(Refusal):
    """The caller is known and may not do this."""

    status = 403


class NotFound(Refusal):
    """The named entity does not exist, or is not the caller's to see."""

    status = 404


class Conflict(Refusal):
    """The current state does not allow this."""

    status = 409


class TooLarge(Refusal):
    """What was asked for does not fit into one message."""

    status = 413


class Unprocessable(Refusal):
    """The request is well formed but names something that cannot be used."""

    status = 422


class TooMany(Refusal, retryable=True):
    """More work was asked for than can be taken on at the moment."""

    status = 429


class Internal(Refusal):
    """Something is wrong in the service itself."""

    status = 500


class Down(Refusal, retryable=True):
    """Something that the service depends on cannot be reached."""

    status = 503


class TimedOut(Refusal, retryable=True):
    """The time that was given has run out."""

    status = 504
