"""What the database's errors mean to a caller."""

from __future__ import annotations

import logging
import traceback

from sqlalchemy import (
    Column,
    ForeignKeyConstraint,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    UniqueConstraint,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.visitors import iterate

from bus.contract.errors import (
    AlreadyExists,
    ConstraintViolated,
    DeadlineExceeded,
    FieldError,
    InternalError,
    InvalidReference,
    InvalidRequest,
    Unavailable,
)
from bus.contract.refusals import Refusal
from bus.kit.ids import uuid7
from bus.kit.logs import limited
from bus.running.registry import Bound
from bus.storage.outages import (
    READ_ONLY,
    SERIALIZATION_FAILURES,
    is_passing,
    sqlstate,
    trouble,
)
from bus.storage.tables import Row

log = logging.getLogger("fleetbus.bus")


_INTERNAL = "internal error %s in %s%s"

_logged: dict[str, str] = {}
"""The ids that were logged last, of an operation and a class of errors each."""

MAX_FIELD_ERRORS = 20
"""A request that is wrong in more places is told the first of them."""

MAX_FIELD_PATH = 300

PROGRAM_LIMIT_EXCEEDED = "54000"
"""A value is too long for an index, which takes some 2,700 bytes."""


def is_retryable(error: BaseException, bound: Bound) -> bool:
    """Whether running the work again may help. A query that writes is refused for ever."""
    if sqlstate(error) == READ_ONLY:
        return bound.declared.kind == "command"
    return is_passing(error)


def refusal_for(error: BaseException, bound: Bound) -> Refusal:
    """The declared refusal that an exception amounts to; a bug becomes ``InternalError``."""
    refusal = error if isinstance(error, Refusal) else _translated(error, bound)
    if refusal is not None and isinstance(refusal, bound.may_raise):
        return refusal
    undeclared = "" if refusal is None else f" (undeclared {type(refusal).__name__})"
    return internal_error(bound, error, undeclared)


def loggable(error: BaseException, bound: Bound) -> str:
    """What a line may say of an error: of a secret operation's only where it came from.

    Messages may quote values: those that were not valid, those of a row that broke a rule.
    """
    return _outline(error) if bound.declared.secret else str(error)


def internal_error(bound: Bound, error: BaseException | None, more: str = "") -> InternalError:
    """A bug, with the id that is beside its traceback in the log.

    What comes too often is not logged each time: then it is the id of the last one like it.
    """
    subject = bound.subject
    kind = f"internal error in {subject}: {type(error).__name__}"
    error_id = str(uuid7())
    if bound.declared.secret and error is not None:
        more, error = f"{more}\n{_outline(error)}", None
    if limited(log, logging.ERROR, kind, _INTERNAL, error_id, subject, more, exc_info=error):
        _logged[kind] = error_id
    return InternalError(error_id=_logged.get(kind, error_id))


def _outline(error: BaseException) -> str:
    """Where an error and its causes came from, without a word of what they say."""
    lines: list[str] = []
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        lines += [*traceback.format_tb(cause.__traceback__), f"{type(cause).__qualname__}\n"]
        cause = cause.__cause__ or cause.__context__
    return "".join(lines).rstrip()


def _translated(error: BaseException, bound: Bound) -> Refusal | None:
    if isinstance(error, TimeoutError):
        return DeadlineExceeded(when="during the work")
    state = sqlstate(error)
    if state in SERIALIZATION_FAILURES:
        return Unavailable(what="other transactions got in the way three times")
    if state == PROGRAM_LIMIT_EXCEEDED:
        message = "a name, address or reference has too many bytes to be looked up"
        return InvalidRequest(errors=[FieldError(field="", message=message)])
    if state is not None and state.startswith("23"):
        return _as_asked(_violated(error), bound)
    if state == READ_ONLY and bound.declared.kind == "query":
        return None
    words = trouble(error)
    return None if words is None else Unavailable(what=words)


def _violated(error: BaseException) -> Refusal:
    origin = error.orig if isinstance(error, DBAPIError) else error
    cause = getattr(origin, "__cause__", None)
    name = getattr(cause, "constraint_name", None) or getattr(origin, "constraint_name", None)
    return refusal_for_constraint(str(name), Row.metadata)


def _as_asked(refusal: Refusal, bound: Bound) -> Refusal:
    """The refusal in the words of the request, whose field holds several where a row holds one."""
    if not isinstance(refusal, InvalidReference):
        return refusal
    fields = bound.operation.model_fields
    several = f"{refusal.field}s"
    if refusal.field in fields or several not in fields:
        return refusal
    return InvalidReference(field=several, entity=refusal.entity)


def refusal_for_constraint(name: str, tables: MetaData) -> Refusal:
    """The refusal that the violation of a named constraint or unique index amounts to."""
    for table in tables.tables.values():
        noun = _singular(table.name)
        for constraint in table.constraints:
            if constraint.name != name:
                continue
            if isinstance(constraint, (UniqueConstraint, PrimaryKeyConstraint)):
                return AlreadyExists(entity=noun, fields=" and ".join(constraint.columns.keys()))
            if isinstance(constraint, ForeignKeyConstraint):
                target = _singular(constraint.referred_table.name)
                return InvalidReference(field=" and ".join(constraint.column_keys), entity=target)
        for index in table.indexes:
            if index.unique and index.name == name:
                return AlreadyExists(entity=noun, fields=" and ".join(_indexed(index)))
    return ConstraintViolated(constraint=name)


def _indexed(index: Index) -> list[str]:
    """The columns that an index is about, also within functions; of a text its name tells."""
    expressions = [one for one in index.expressions if isinstance(one, ClauseElement)]
    parts = [part for expression in expressions for part in iterate(expression)]
    columns = dict.fromkeys(part.name for part in parts if isinstance(part, Column))
    return list(columns) or [str(index.name).rpartition("__")[2]]


def _singular(table: str) -> str:
    return table.removesuffix("ies") + "y" if table.endswith("ies") else table.removesuffix("s")
